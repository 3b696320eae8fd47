package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class SimPropertyTest extends PropertyContract implements Devices.Sim {
  @Override
  int cases() {
    return 30;
  }
}
