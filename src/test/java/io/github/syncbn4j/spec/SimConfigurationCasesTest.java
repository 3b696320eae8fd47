package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class SimConfigurationCasesTest extends ConfigurationCasesContract implements Devices.Sim {}
