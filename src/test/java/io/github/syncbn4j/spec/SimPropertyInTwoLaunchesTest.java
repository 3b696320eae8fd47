package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class SimPropertyInTwoLaunchesTest extends PropertyContract implements Devices.SimInTwoLaunches {
  @Override
  int cases() {
    return 30;
  }
}
