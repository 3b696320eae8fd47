package io.github.syncbn4j;

class GpuGuestTest extends GuestContract implements Devices.Gpu {}
