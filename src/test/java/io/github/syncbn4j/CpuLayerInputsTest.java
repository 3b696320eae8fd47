package io.github.syncbn4j;

class CpuLayerInputsTest extends LayerInputsContract implements Devices.Cpu {}
