package io.github.syncbn4j;

class CpuLayerStateTest extends LayerStateContract implements Devices.Cpu {}
