package io.github.syncbn4j;

class SimGraphReplayTest extends GraphReplayContract implements Devices.Sim {}
