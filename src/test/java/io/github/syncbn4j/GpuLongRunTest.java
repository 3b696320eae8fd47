package io.github.syncbn4j;

class GpuLongRunTest extends LongRunContract implements Devices.Gpu {
  @Override
  int defaultSteps() {
    return 10_000;
  }
}
