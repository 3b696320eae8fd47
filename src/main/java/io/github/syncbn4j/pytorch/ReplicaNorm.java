package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.device.Address;
import java.lang.ref.Reference;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.pytorch.GradMode;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * What the three public batch norms do: one of libtorch's on one replica, normalizing with the
 * statistics of all replicas. Used by one thread at a time.
 */
final class ReplicaNorm {
  private final NativeNorm norm;
  private final SharedNorm shared;
  private final Replica replica;
  private final NormState state;
  private final TensorOptions scalar;

  /** Those whose backward may come. */
  private final List<Backward> open = new ArrayList<>();

  ReplicaNorm(NativeNorm norm, SharedNorm shared, Replica replica) {
    this.norm = norm;
    this.shared = shared;
    this.replica = replica;
    this.state = shared.state(replica);
    this.scalar = Tensors.options(state.device(), ScalarType.Float).retainReference();
    forbidForwardInNative();
  }

  /**
   * Whoever gets at the module without Java, as a {@code Sequential} does, would normalize with the
   * replica's own statistics. libtorch refuses statistics of the wrong length.
   */
  private void forbidForwardInNative() {
    try (Tensor none = torch.empty(0)) {
      norm.runningMeanOfForward().accept(none);
    }
  }

  /** Makes libtorch's module what it was, and ends the synchronization, for all replicas. */
  void release() {
    norm.runningMeanOfForward().accept(runningMean());
    shared.close();
  }

  Replica replica() {
    return replica;
  }

  NativeNorm norm() {
    return norm;
  }

  /** Null if there is none. */
  Tensor weight() {
    return norm.weight();
  }

  /** Null if there is none. */
  Tensor bias() {
    return norm.bias();
  }

  /**
   * @param residual null for none
   */
  Tensor forward(Tensor x, Tensor residual) {
    requireDefined(x, "x");
    if (residual != null) {
      requireDefined(residual, "the residual");
    }
    boolean batch = norm.module().is_training() || norm.runningMean() == null;
    requireFits(x, batch);
    closeWhatIsOver();
    SyncBatchNormalization layer = shared.layer(Tensors.dtype(x.scalar_type()));
    Tensor y = torch.empty_like(x);
    Lent lentX = input(x);
    ForwardPass pass = null;
    boolean kept = false;
    try (Lent lentResidual = residual == null ? null : input(residual);
        Lent lentY = output(y)) {
      state.toLayer();
      CurrentStream.use(replica, x);
      pass =
          layer.forward(replica, lentX.tensor(), lentY.tensor(), tensor(lentResidual), null, batch);
      lentY.fetch();
      if (pass.training()) {
        state.fromLayer();
      }
      if (GradMode.is_enabled() && anyHasGradient(x, residual, weight(), bias())) {
        open.add(new Backward(this, layer, pass, lentX, x, residual, y));
        kept = true;
      }
    } finally {
      if (!kept) {
        close(pass, lentX);
      }
      // The layer knows addresses alone.
      Reference.reachabilityFence(x);
      Reference.reachabilityFence(residual);
    }
    return y;
  }

  private static void close(ForwardPass pass, Lent x) {
    if (pass != null) {
      pass.close();
    }
    x.close();
  }

  /** Runs the layer's backward; {@code dresidual} is null if there was no residual. */
  void backward(
      SyncBatchNormalization layer, ForwardPass pass, Tensor dy, Tensor dx, Tensor dresidual) {
    try (Lent lentDy = input(dy);
        Lent lentDx = output(dx);
        Lent lentDresidual = dresidual == null ? null : output(dresidual)) {
      CurrentStream.use(replica, dy);
      layer.backward(pass, lentDy.tensor(), lentDx.tensor(), tensor(lentDresidual));
      lentDx.fetch();
      if (lentDresidual != null) {
        lentDresidual.fetch();
      }
    }
  }

  private Lent input(Tensor tensor) {
    String where = Tensors.device(tensor);
    if (!where.equals(state.device())) {
      throw new IllegalArgumentException(
          "a tensor on %s for a batch norm on %s".formatted(where, state.device()));
    }
    return Lent.input(replica, tensor, state.copied());
  }

  private Lent output(Tensor tensor) {
    return Lent.output(replica, tensor, state.copied());
  }

  private static DeviceTensor tensor(Lent lent) {
    return lent == null ? null : lent.tensor();
  }

  /** Undefined if it tracks none. */
  Tensor runningMean() {
    return norm.runningMean() == null ? new Tensor() : norm.runningMean();
  }

  void resetRunningStats() {
    if (norm.runningMean() == null) {
      return;
    }
    norm.runningMean().zero_();
    try (Scalar one = new Scalar(1.0)) {
      norm.runningVar().fill_(one);
    }
    norm.numBatchesTracked().zero_();
  }

  private static void requireDefined(Tensor tensor, String name) {
    if (!tensor.defined()) {
      throw new IllegalArgumentException(name + " is an undefined tensor");
    }
  }

  private void requireFits(Tensor x, boolean batch) {
    if (x.dim() < norm.least() || x.dim() > norm.most()) {
      throw new IllegalArgumentException(
          "x must have %s dimensions, not %s"
              .formatted(
                  norm.least() == norm.most() ? norm.most() : norm.least() + " or " + norm.most(),
                  Arrays.toString(x.shape())));
    }
    // With several replicas only the exchange tells, in the middle of the step.
    if (batch && replica.group().size() == 1 && x.numel() == x.size(1) && x.size(1) > 0) {
      throw new IllegalArgumentException(
          "expected more than 1 value per channel when training, got x of shape "
              + Arrays.toString(x.shape()));
    }
  }

  private void closeWhatIsOver() {
    open.removeIf(
        backward -> {
          boolean over = backward.isOver();
          if (over) {
            backward.close();
          }
          return over;
        });
  }

  private static boolean anyHasGradient(Tensor... inputs) {
    return Arrays.stream(inputs).anyMatch(input -> input != null && input.requires_grad());
  }

  /** A tensor that nothing else has a handle on. */
  Tensor token() {
    Tensor token = torch.ones(new long[] {1}, scalar).retainReference();
    token.requires_grad_(true);
    return token;
  }

  /** Grows whenever parameters that backward reads are written by way of libtorch. */
  long parameterVersions() {
    return version(weight()) + (shared.relu() ? version(bias()) : 0);
  }

  private static long version(Tensor tensor) {
    return tensor == null ? 0 : tensor._version();
  }

  /** Whether a thread in backward waits there for the other replicas. */
  boolean waitsInBackward() {
    return replica.group().size() > 1 && state.device().equals("cpu");
  }

  /** Of the last backward; null if there is none. */
  Tensor weightGradient(SyncBatchNormalization layer) {
    return weight() == null ? null : copy(layer.gammaGradient(replica), weight());
  }

  /** As {@link #weightGradient}. */
  Tensor biasGradient(SyncBatchNormalization layer) {
    return bias() == null ? null : copy(layer.betaGradient(replica), bias());
  }

  private Tensor copy(DeviceTensor gradient, Tensor like) {
    if (state.copied()) {
      Tensor copy = torch.empty_like(like);
      DeviceCopy.copyTo(copy, gradient);
      return copy;
    }
    try (TensorOptions options = like.options();
        Tensor view = torch.from_blob(new Address(gradient.address()), gradient.shape(), options)) {
      return view.clone();
    }
  }
}
