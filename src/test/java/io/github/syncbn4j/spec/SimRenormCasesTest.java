package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class SimRenormCasesTest extends RenormCasesContract implements Devices.Sim {}
