package io.github.syncbn4j;

class SimLayerStateTest extends LayerStateContract implements Devices.Sim {}
