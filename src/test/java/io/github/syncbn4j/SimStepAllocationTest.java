package io.github.syncbn4j;

class SimStepAllocationTest extends StepAllocationContract implements Devices.Sim {}
