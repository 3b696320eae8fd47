package io.github.syncbn4j;

class SimGuestTest extends GuestContract implements Devices.Sim {}
