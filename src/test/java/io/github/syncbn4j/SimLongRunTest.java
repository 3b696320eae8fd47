package io.github.syncbn4j;

class SimLongRunTest extends LongRunContract implements Devices.Sim {
  @Override
  int defaultSteps() {
    return 500;
  }
}
