package io.github.syncbn4j;

class CpuLayerErrorsTest extends LayerErrorsContract implements Devices.Cpu {}
