package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class CpuConfigurationCasesTest extends ConfigurationCasesContract implements Devices.Cpu {}
