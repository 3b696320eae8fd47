package io.github.syncbn4j.cli.train;

class CpuResumeTest extends ResumeContract {
  CpuResumeTest() {
    super(false);
  }
}
