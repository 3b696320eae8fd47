package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class CpuStatisticsCasesTest extends StatisticsCasesContract implements Devices.Cpu {}
