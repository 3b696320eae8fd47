package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.SyncBatchNormalization;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Edge;
import org.bytedeco.pytorch.FunctionPostHook;
import org.bytedeco.pytorch.FunctionPreHook;
import org.bytedeco.pytorch.GradMode;
import org.bytedeco.pytorch.Node;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * The backward of one forward, as a node of libtorch's graph.
 *
 * <p>libtorch lets Java define no node, but hook into any. So this is the node of a {@code cat} of
 * one-element tensors, its edges led to x, the residual, weight and bias: a hook before it computes
 * all gradients and hands on none, which the backward of {@code cat} passes through, and a hook
 * behind it puts them in. No pass over the data is added, and libtorch accumulates every gradient.
 *
 * <p>The first input is the product of a token and an element of x. What a product saves for its
 * backward keeps the memory of x, and notices when x is changed in place. Nothing else keeps the
 * token, whose use count so tells when libtorch has dropped the graph or has run it without {@code
 * retain_graph}.
 */
final class Backward {
  /** The token's product, x, residual, weight, bias. */
  private static final int INPUTS = 5;

  /** What a hook returned last in this thread. libtorch has its own handles by the next time. */
  private static final ThreadLocal<TensorVector> RETURNED = new ThreadLocal<>();

  private final ReplicaNorm norm;
  private final SyncBatchNormalization layer;
  private final ForwardPass pass;
  private final Lent lentX;
  private final Thread thread = Thread.currentThread();
  private final long parameterVersions;
  private final long[] shape;
  private final long[] strides;
  private final TensorOptions options;
  private final boolean hasResidual;
  private final Tensor token;
  private Tensor[] gradients;
  private boolean closed;

  /** libtorch's handles on hooks are weak: these two live as long as this. */
  private final FunctionPreHook before =
      new FunctionPreHook() {
        @Override
        public TensorVector apply(TensorVector outputGradients) {
          compute(outputGradients.get(0));
          return returned(new TensorVector(1));
        }
      };

  private final FunctionPostHook behind =
      new FunctionPostHook() {
        @Override
        public TensorVector apply(TensorVector inputGradients, TensorVector outputGradients) {
          return returned(takeGradients());
        }
      };

  /**
   * Gives {@code y}, which was computed from the others, its place in the graph.
   *
   * @param residual null if there was none
   */
  @SuppressWarnings("try")
  Backward(
      ReplicaNorm norm,
      SyncBatchNormalization layer,
      ForwardPass pass,
      Lent lentX,
      Tensor x,
      Tensor residual,
      Tensor y) {
    this.norm = norm;
    this.layer = layer;
    this.pass = pass;
    this.lentX = lentX;
    this.parameterVersions = norm.parameterVersions();
    this.shape = y.shape();
    this.strides = Tensors.strides(y);
    this.options = y.options().retainReference();
    this.hasResidual = residual != null;
    this.token = norm.token();
    try (PointerScope scope = new PointerScope()) {
      Node node = node(x);
      node.set_next_edge(1, edge(x));
      node.set_next_edge(2, edge(residual));
      node.set_next_edge(3, edge(norm.weight()));
      node.set_next_edge(4, edge(norm.bias()));
      node.clear_input_metadata();
      torch.create_gradient_edge(y, node);
      node.add_pre_hook(before);
      node.add_post_hook(behind);
    }
  }

  private Node node(Tensor x) {
    Tensor element = x.detach().as_strided(new long[] {Math.min(1, x.numel())}, 1);
    element.requires_grad_(true);
    Tensor product = token.mul(element);
    Node keeper = product.grad_fn();
    keeper.set_next_edge(0, new Edge());
    keeper.set_next_edge(1, new Edge());
    TensorVector inputs = new TensorVector(INPUTS);
    inputs.put(0, product);
    for (int i = 1; i < INPUTS; i++) {
      inputs.put(i, token);
    }
    return torch.cat(inputs).grad_fn();
  }

  /** What leads to a tensor's gradient; leads nowhere if it has none. */
  private static Edge edge(Tensor tensor) {
    return tensor != null && tensor.requires_grad()
        ? tensor.alias().grad_fn().next_edge(0)
        : new Edge();
  }

  /** Whether libtorch will not come back to it. */
  boolean isOver() {
    return closed || token.use_count() == 1;
  }

  private void compute(Tensor dy) {
    requireFirstOrder();
    requireSaved();
    requireThread();
    Tensor dx = torch.empty_strided(shape, strides, options);
    Tensor dresidual = hasResidual ? torch.empty_strided(shape, strides, options) : null;
    if (dy.defined()) {
      norm.backward(layer, pass, dy, dx, dresidual);
    } else {
      // Nothing depends on y, but the other replicas wait for this one.
      try (Tensor zeros = torch.zeros(shape, options)) {
        norm.backward(layer, pass, zeros, dx, dresidual);
      }
    }
    gradients =
        new Tensor[] {null, dx, dresidual, norm.weightGradient(layer), norm.biasGradient(layer)};
    requireSameParameters();
  }

  private TensorVector takeGradients() {
    TensorVector taken = new TensorVector(INPUTS);
    for (int i = 0; i < INPUTS; i++) {
      if (gradients[i] != null) {
        taken.put(i, gradients[i]);
        gradients[i].close();
      }
    }
    gradients = null;
    return taken;
  }

  private static TensorVector returned(TensorVector now) {
    TensorVector last = RETURNED.get();
    if (last != null) {
      last.close();
    }
    RETURNED.set(now);
    return now;
  }

  private void requireFirstOrder() {
    if (GradMode.is_enabled()) {
      throw new UnsupportedOperationException(
          "the backward of a synchronized batch norm has no gradient of its own: create_graph must be false");
    }
  }

  private void requireSaved() {
    if (isOver()) {
      throw new IllegalStateException(
          "backward through a synchronized batch norm a second time: the first needs retain_graph");
    }
  }

  private void requireThread() {
    Thread here = Thread.currentThread();
    if (here != thread && pass.training() && norm.waitsInBackward()) {
      throw new IllegalStateException(
          "backward of %s runs in thread %s, its forward ran in %s: it would wait for the other replicas, whose backward may be this thread's too. Every replica needs a thread of its own, for both"
              .formatted(norm.replica(), here.getName(), thread.getName()));
    }
  }

  private void requireSameParameters() {
    if (norm.parameterVersions() != parameterVersions) {
      throw new IllegalStateException(
          "weight or bias of a synchronized batch norm was changed in place between forward and backward");
    }
  }

  /** Gives the pass back to the layer. */
  void close() {
    closed = true;
    pass.close();
    lentX.close();
    token.close();
    options.close();
  }
}
