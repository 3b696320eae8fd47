package io.github.syncbn4j.cli.train;

import org.junit.jupiter.api.Tag;

@Tag("sim")
class SimResumeTest extends ResumeContract {
  SimResumeTest() {
    super(true);
  }
}
