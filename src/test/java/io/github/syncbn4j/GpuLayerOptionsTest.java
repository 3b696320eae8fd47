package io.github.syncbn4j;

class GpuLayerOptionsTest extends LayerOptionsContract implements Devices.Gpu {}
