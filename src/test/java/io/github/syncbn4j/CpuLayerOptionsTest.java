package io.github.syncbn4j;

class CpuLayerOptionsTest extends LayerOptionsContract implements Devices.Cpu {}
