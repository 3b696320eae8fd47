package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class GpuRenormCasesTest extends RenormCasesContract implements Devices.Gpu {}
