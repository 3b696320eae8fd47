package io.github.syncbn4j;

class SimLayerParametersTest extends LayerParametersContract implements Devices.Sim {}
