package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class GpuPropertyTest extends PropertyContract implements Devices.Gpu {
  @Override
  int cases() {
    return 300;
  }
}
