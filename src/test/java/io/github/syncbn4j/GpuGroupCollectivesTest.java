package io.github.syncbn4j;

class GpuGroupCollectivesTest extends GroupCollectivesContract implements Devices.Gpu {}
