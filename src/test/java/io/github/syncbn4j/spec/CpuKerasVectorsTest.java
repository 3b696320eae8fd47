package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class CpuKerasVectorsTest extends KerasVectorsContract implements Devices.Cpu {}
