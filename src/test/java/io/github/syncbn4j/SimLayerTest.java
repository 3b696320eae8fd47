package io.github.syncbn4j;

class SimLayerTest extends LayerContract implements Devices.Sim {}
