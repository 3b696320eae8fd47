package io.github.syncbn4j;

class CpuLayerParametersTest extends LayerParametersContract implements Devices.Cpu {}
