package io.github.syncbn4j;

class SimLayerErrorsTest extends LayerErrorsContract implements Devices.Sim {}
