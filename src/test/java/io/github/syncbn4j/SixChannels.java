package io.github.syncbn4j;

/** Layers of six channels, for contracts in which their number does not matter. */
abstract class SixChannels implements Devices {
  static final int CHANNELS = 6;

  static SyncBatchNormalization.Builder layerOf(ReplicaGroup group) {
    return SyncBatchNormalization.builder(group, CHANNELS).momentum(0.8);
  }
}
