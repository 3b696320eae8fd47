package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class SimKerasVectorsTest extends KerasVectorsContract implements Devices.Sim {}
