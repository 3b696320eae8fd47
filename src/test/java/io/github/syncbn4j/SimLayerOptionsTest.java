package io.github.syncbn4j;

class SimLayerOptionsTest extends LayerOptionsContract implements Devices.Sim {}
