package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Devices;

class CpuDataParallelTest extends DataParallelContract implements Devices.Cpu {}
