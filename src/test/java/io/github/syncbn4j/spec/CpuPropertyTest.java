package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class CpuPropertyTest extends PropertyContract implements Devices.Cpu {
  @Override
  int cases() {
    return 75;
  }
}
