package io.github.syncbn4j.spec;

import io.github.syncbn4j.Devices;

class SimStatisticsCasesTest extends StatisticsCasesContract implements Devices.Sim {}
