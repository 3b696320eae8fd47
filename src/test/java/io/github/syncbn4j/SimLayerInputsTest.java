package io.github.syncbn4j;

class SimLayerInputsTest extends LayerInputsContract implements Devices.Sim {}
