package io.github.syncbn4j;

class GpuLayerParametersTest extends LayerParametersContract implements Devices.Gpu {}
