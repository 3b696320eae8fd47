package io.github.syncbn4j;

class GpuLayerInputsTest extends LayerInputsContract implements Devices.Gpu {}
