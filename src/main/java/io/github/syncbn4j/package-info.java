/**
 * Synchronized batch normalization: every replica normalizes its part of the batch with the mean
 * and variance of the whole batch, as Keras' {@code SyncBatchNormalization} does.
 *
 * <p>Start with a {@link io.github.syncbn4j.ReplicaGroup}, allocate or wrap {@link
 * io.github.syncbn4j.DeviceTensor}s on its {@link io.github.syncbn4j.Replica}s, and build a {@link
 * io.github.syncbn4j.SyncBatchNormalization}.
 */
package io.github.syncbn4j;
