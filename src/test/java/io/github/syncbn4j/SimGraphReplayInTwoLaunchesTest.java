package io.github.syncbn4j;

class SimGraphReplayInTwoLaunchesTest extends GraphReplayContract
    implements Devices.SimInTwoLaunches {}
