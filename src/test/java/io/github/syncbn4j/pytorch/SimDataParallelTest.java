package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Devices;

/** Everything is copied to the GPUs and back. */
class SimDataParallelTest extends DataParallelContract implements Devices.Sim {}
