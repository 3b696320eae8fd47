package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import java.util.List;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.BatchNorm3dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.Tensor;

/**
 * libtorch's {@code BatchNorm3d} on one replica, normalizing with the statistics of all of them:
 * inputs {@code [batch, channels, depth, height, width]}. See the {@linkplain
 * io.github.syncbn4j.pytorch package}.
 */
public final class SyncBatchNorm3d extends BatchNorm3dImpl {
  private final BatchNorm3dImpl original;
  private final ReplicaNorm norm;

  /** The same native module as {@code original}. */
  SyncBatchNorm3d(BatchNorm3dImpl original, ReplicaNorm norm) {
    super((Pointer) original);
    this.original = original;
    this.norm = norm;
  }

  /**
   * A new batch norm for each replica, in rank order and on its device.
   *
   * @param options as of {@link BatchNorm3dImpl}
   */
  public static List<SyncBatchNorm3d> replicas(ReplicaGroup group, BatchNormOptions options) {
    return replicas(group, options, false);
  }

  /**
   * As {@link #replicas(ReplicaGroup, BatchNormOptions)}.
   *
   * @param relu whether a ReLU follows, in the same kernel
   */
  public static List<SyncBatchNorm3d> replicas(
      ReplicaGroup group, BatchNormOptions options, boolean relu) {
    return SharedNorm.create(
        group, relu, () -> new BatchNorm3dImpl(options), NativeNorm::of, SyncBatchNorm3d::new);
  }

  /**
   * Normalizes {@code x}. Every replica's thread has to call it, unless the module is in evaluation
   * mode and has running statistics.
   *
   * @return a new tensor, of the type, shape and memory format of {@code x}
   * @throws IllegalArgumentException for a tensor that does not fit
   */
  @Override
  public Tensor forward(Tensor x) {
    return norm.forward(x, null);
  }

  /**
   * As {@link #forward(Tensor)}, with {@code residual} added, before the ReLU if there is one.
   *
   * @param residual of the type and shape of {@code x}
   */
  public Tensor forward(Tensor x, Tensor residual) {
    return norm.forward(x, residual);
  }

  BatchNorm3dImpl original() {
    return original;
  }

  ReplicaNorm norm() {
    return norm;
  }

  /** The replica that it normalizes for. */
  public Replica replica() {
    return norm.replica();
  }

  @Override
  public Tensor running_mean() {
    return norm.runningMean();
  }

  @Override
  public void reset_parameters() {
    super.reset_parameters();
    norm.resetRunningStats();
  }

  @Override
  public void reset_running_stats() {
    norm.resetRunningStats();
  }
}
