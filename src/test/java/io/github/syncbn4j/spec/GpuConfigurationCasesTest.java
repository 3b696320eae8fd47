package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class GpuConfigurationCasesTest extends ConfigurationCasesContract implements Devices.Gpu {}
