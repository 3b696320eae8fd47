package io.github.syncbn4j.device;

import io.github.syncbn4j.device.natives.syncbn_control;

/**
 * The control words of one replica ({@code syncbn_control}).
 *
 * @param host the words as the host reads and writes them
 * @param address the same words as the device's kernels reach them
 */
public record Control(syncbn_control host, long address) {}
