package io.github.syncbn4j;

class SimLayerInTwoLaunchesTest extends LayerContract implements Devices.SimInTwoLaunches {}
