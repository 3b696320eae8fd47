package io.github.syncbn4j.pytorch;

import java.util.function.Consumer;
import org.bytedeco.pytorch.BatchNorm1dImpl;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNorm3dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.Tensor;

/**
 * A batch norm of libtorch's, whichever of the three it is.
 *
 * @param momentum the weight of the new value in the running statistics; null for the average of
 *     all steps
 * @param least dimensions of an input
 * @param most dimensions of an input
 * @param weight null if it is not affine, as {@code bias}
 * @param runningMean null if it tracks no statistics, as the two after it
 * @param runningMeanOfForward sets what libtorch's own forward uses
 */
record NativeNorm(
    Module module,
    long channels,
    double eps,
    Double momentum,
    int least,
    int most,
    Tensor weight,
    Tensor bias,
    Tensor runningMean,
    Tensor runningVar,
    Tensor numBatchesTracked,
    Consumer<Tensor> runningMeanOfForward) {

  /** Null for any other module. */
  static NativeNorm of(Module module) {
    BatchNorm1dImpl one = module.asBatchNorm1d();
    BatchNorm2dImpl two = module.asBatchNorm2d();
    BatchNorm3dImpl three = module.asBatchNorm3d();
    return one != null ? of(one) : two != null ? of(two) : three != null ? of(three) : null;
  }

  static NativeNorm of(BatchNorm1dImpl norm) {
    return of(
        norm,
        norm.options(),
        2,
        3,
        norm.weight(),
        norm.bias(),
        norm.running_mean(),
        norm.running_var(),
        norm.num_batches_tracked(),
        norm::running_mean);
  }

  static NativeNorm of(BatchNorm2dImpl norm) {
    return of(
        norm,
        norm.options(),
        4,
        4,
        norm.weight(),
        norm.bias(),
        norm.running_mean(),
        norm.running_var(),
        norm.num_batches_tracked(),
        norm::running_mean);
  }

  static NativeNorm of(BatchNorm3dImpl norm) {
    return of(
        norm,
        norm.options(),
        5,
        5,
        norm.weight(),
        norm.bias(),
        norm.running_mean(),
        norm.running_var(),
        norm.num_batches_tracked(),
        norm::running_mean);
  }

  /** The three have no class in common that Java sees. */
  private static NativeNorm of(
      Module module,
      BatchNormOptions options,
      int least,
      int most,
      Tensor weight,
      Tensor bias,
      Tensor runningMean,
      Tensor runningVar,
      Tensor numBatchesTracked,
      Consumer<Tensor> runningMeanOfForward) {
    return new NativeNorm(
        module,
        options.num_features().get(),
        options.eps().get(),
        momentum(options),
        least,
        most,
        held(weight),
        held(bias),
        held(runningMean),
        held(runningVar),
        held(numBatchesTracked),
        runningMeanOfForward);
  }

  /** A handle of our own on the tensor of a field, which lives beyond any scope. */
  private static Tensor held(Tensor field) {
    return field.defined() ? new Tensor(field).retainReference() : null;
  }

  private static Double momentum(BatchNormOptions options) {
    return options.momentum().has_value() ? options.momentum().get() : null;
  }

  /** Everything that has to be the same on all replicas, for people. */
  String signature() {
    return "%s(%d, eps=%s, momentum=%s, affine=%b, track_running_stats=%b)"
        .formatted(
            module.name().getString(),
            channels,
            eps,
            momentum,
            weight != null,
            runningMean != null);
  }
}
