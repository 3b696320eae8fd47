package io.github.syncbn4j;

class GpuGraphReplayTest extends GraphReplayContract implements Devices.Gpu {}
