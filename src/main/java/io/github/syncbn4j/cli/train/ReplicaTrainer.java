package io.github.syncbn4j.cli.train;

import static org.bytedeco.pytorch.global.torch.cross_entropy_loss;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.pytorch.DataParallel;
import java.util.List;
import java.util.function.IntFunction;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Adam;
import org.bytedeco.pytorch.AdamOptions;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;

/**
 * One replica's copy of the model and its training loop: forward and backward on its own images,
 * gradients averaged over the replicas, then the same update on every replica. Used by the
 * replica's own thread.
 */
final class ReplicaTrainer {
  static final double LEARNING_RATE = 3e-3;

  private final Digits digits;
  private final IntFunction<int[]> batches;
  private final DigitsNet network;
  private final TensorVector parameters;
  private final Adam optimizer;
  private final Replica replica;
  private final Device device;
  private DataParallel parallel;

  /**
   * @param batches the images that this replica reads, by step
   */
  ReplicaTrainer(
      Replica replica, Digits digits, IntFunction<int[]> batches, List<BatchNorm2dImpl> norms) {
    this.replica = replica;
    this.digits = digits;
    this.batches = batches;
    this.network = new DigitsNet(norms);
    this.device = DataParallel.device(replica);
    network.to(device, false);
    this.parameters = network.parameters();
    this.optimizer = new Adam(parameters, new AdamOptions(LEARNING_RATE));
  }

  /** All replicas start with the weights of rank 0. */
  void start() {
    parallel = new DataParallel(replica, network);
  }

  /**
   * @return this replica's part of the loss, which is the mean over the images of all replicas
   */
  @SuppressWarnings("try")
  double step(int step) {
    try (PointerScope scope = new PointerScope()) {
      int[] images = batches.apply(step);
      optimizer.zero_grad();
      Tensor logits = network.forward(here(digits.images(images)));
      Tensor loss = cross_entropy_loss(logits, here(digits.labels(images)));
      loss.backward();
      parallel.averageGradients();
      optimizer.step();
      return loss.item_double() / replica.group().size();
    }
  }

  private Tensor here(Tensor tensor) {
    return tensor.to(device, tensor.scalar_type());
  }

  /** The share of these images that the network puts into the right class. */
  @SuppressWarnings("try")
  double accuracy(int[] images) {
    network.eval();
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      Tensor logits = network.forward(here(digits.images(images)));
      LongPointer found = logits.argmax(new LongOptional(1), false).cpu().data_ptr_long();
      int right = 0;
      for (int i = 0; i < images.length; i++) {
        right += found.get(i) == digits.label(images[i]) ? 1 : 0;
      }
      return (double) right / images.length;
    } finally {
      network.train(true);
    }
  }

  DigitsNet network() {
    return network;
  }

  Adam optimizer() {
    return optimizer;
  }

  /** Where its tensors are. */
  Device device() {
    return device;
  }

  /** Whether its running statistics are another's, bit for bit. */
  @SuppressWarnings("try")
  boolean hasBuffersOf(ReplicaTrainer other) {
    try (PointerScope scope = new PointerScope()) {
      TensorVector mine = buffers();
      TensorVector theirs = other.buffers();
      boolean same = true;
      for (long i = 0; same && i < mine.size(); i++) {
        same = mine.get(i).cpu().equal(theirs.get(i).cpu());
      }
      return same;
    }
  }

  /** Running means and variances of its layers: the network's own tensors, in a new list. */
  TensorVector buffers() {
    TensorVector floating = new TensorVector();
    try (TensorVector all = network.buffers()) {
      for (long i = 0; i < all.size(); i++) {
        if (all.get(i).is_floating_point()) {
          floating.push_back(all.get(i));
        }
      }
    }
    return floating;
  }
}
