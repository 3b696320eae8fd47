package io.github.syncbn4j;

class GpuLayerTest extends LayerContract implements Devices.Gpu {}
