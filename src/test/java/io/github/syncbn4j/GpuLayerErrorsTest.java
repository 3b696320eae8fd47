package io.github.syncbn4j;

class GpuLayerErrorsTest extends LayerErrorsContract implements Devices.Gpu {}
