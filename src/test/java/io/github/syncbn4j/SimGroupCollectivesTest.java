package io.github.syncbn4j;

class SimGroupCollectivesTest extends GroupCollectivesContract implements Devices.Sim {}
