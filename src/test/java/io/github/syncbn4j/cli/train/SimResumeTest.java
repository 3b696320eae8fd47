package io.github.syncbn4j.cli.train;

import org.junit.jupiter.api.Tag;

@Tag("sim")
@Tag("full") // as CpuResumeTest, by a slower way
class SimResumeTest extends ResumeContract {
  SimResumeTest() {
    super(true);
  }
}
