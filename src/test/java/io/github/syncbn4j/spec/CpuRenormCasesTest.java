package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class CpuRenormCasesTest extends RenormCasesContract implements Devices.Cpu {}
