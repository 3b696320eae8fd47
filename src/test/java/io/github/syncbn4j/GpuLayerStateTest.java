package io.github.syncbn4j;

class GpuLayerStateTest extends LayerStateContract implements Devices.Gpu {}
