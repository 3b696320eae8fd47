package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class GpuStatisticsCasesTest extends StatisticsCasesContract implements Devices.Gpu {}
