package io.github.syncbn4j;

class CpuGroupCollectivesTest extends GroupCollectivesContract implements Devices.Cpu {}
