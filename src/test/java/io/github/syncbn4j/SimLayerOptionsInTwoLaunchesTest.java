package io.github.syncbn4j;

class SimLayerOptionsInTwoLaunchesTest extends LayerOptionsContract
    implements Devices.SimInTwoLaunches {}
