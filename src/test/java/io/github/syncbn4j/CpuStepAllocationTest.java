package io.github.syncbn4j;

class CpuStepAllocationTest extends StepAllocationContract implements Devices.Cpu {}
