package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.pytorch.SyncBatchNorm2d;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNormOptions;

/** The normalization layers of the networks of a group: one list of layers a replica. */
@FunctionalInterface
interface Normalizations {
  /** This replica's, with the channels of {@link DigitsNet#CHANNELS}. */
  List<BatchNorm2dImpl> of(Replica replica);

  /** libtorch's own: each replica normalizes with the statistics of its own images. */
  static Normalizations local() {
    return replica ->
        Arrays.stream(DigitsNet.CHANNELS)
            .mapToObj(channels -> new BatchNorm2dImpl(new BatchNormOptions(channels)))
            .toList();
  }

  /**
   * Every replica normalizes with the statistics of all images, on its device: for a replica on a
   * GPU, tensors on the host are copied there and back.
   */
  static Normalizations synchronizedIn(ReplicaGroup group) {
    List<List<SyncBatchNorm2d>> layers =
        Arrays.stream(DigitsNet.CHANNELS)
            .mapToObj(channels -> SyncBatchNorm2d.replicas(group, new BatchNormOptions(channels)))
            .toList();
    return replica ->
        layers.stream()
            .<BatchNorm2dImpl>map(layer -> layer.get(group.replicas().indexOf(replica)))
            .toList();
  }
}
