package io.github.syncbn4j;

class GpuStepAllocationTest extends StepAllocationContract implements Devices.Gpu {}
