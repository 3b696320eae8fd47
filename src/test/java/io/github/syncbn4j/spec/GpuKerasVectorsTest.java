package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class GpuKerasVectorsTest extends KerasVectorsContract implements Devices.Gpu {}
