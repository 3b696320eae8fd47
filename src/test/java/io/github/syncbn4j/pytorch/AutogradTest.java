package io.github.syncbn4j.pytorch;

import static io.github.syncbn4j.pytorch.TorchAssertions.assertClose;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.CollectiveException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.AutoGradMode;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorArrayRefOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

/** Its place in libtorch's graph. */
@SuppressWarnings("try")
class AutogradTest extends ScopedTest {
  private static final long CHANNELS = 3;

  AutogradTest() {
    super(5);
  }

  private static Tensor leaf(long... shape) {
    Tensor x = torch.randn(shape);
    x.requires_grad_(true);
    return x;
  }

  private static SyncBatchNorm2d alone(ReplicaGroup group) {
    return SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS)).get(0);
  }

  private static BatchNorm2dImpl plain() {
    return new BatchNorm2dImpl(new BatchNormOptions(CHANNELS));
  }

  private static void backward(Tensor loss, boolean retain, boolean create) {
    loss.backward(new Tensor(), new BoolOptional(retain), create, new TensorArrayRefOptional());
  }

  @Test
  void fusedResidualAndRelu_areTheOperationsOneByOne() {
    Tensor x = leaf(6, CHANNELS, 4, 4);
    Tensor z = leaf(6, CHANNELS, 4, 4);
    Tensor dy = torch.randn_like(x);
    BatchNorm2dImpl whole = plain();
    Tensor y = whole.forward(x).add(z).relu();
    y.mul(dy).sum().backward();
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      List<SyncBatchNorm2d> norms =
          SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS), true);
      Tensor[] found = new Tensor[6];
      Threads.fromEach(
          group,
          replica -> {
            int rank = replica.rank();
            Tensor mine = x.detach().narrow(0, 3 * rank, 3).clone();
            Tensor other = z.detach().narrow(0, 3 * rank, 3).clone();
            mine.requires_grad_(true);
            other.requires_grad_(true);
            Tensor output = norms.get(rank).forward(mine, other);
            found[rank] = output.detach();
            output.mul(dy.narrow(0, 3 * rank, 3)).sum().backward();
            found[2 + rank] = new Tensor(mine.grad());
            found[4 + rank] = new Tensor(other.grad());
            return null;
          });
      assertClose("y", torch.cat(new TensorVector(found[0], found[1])), y);
      assertClose("dx", torch.cat(new TensorVector(found[2], found[3])), x.grad());
      assertClose("dresidual", torch.cat(new TensorVector(found[4], found[5])), z.grad());
      assertClose(
          "weight.grad",
          norms.get(0).weight().grad().add(norms.get(1).weight().grad()),
          whole.weight().grad());
      assertClose(
          "bias.grad",
          norms.get(0).bias().grad().add(norms.get(1).bias().grad()),
          whole.bias().grad());
    }
  }

  @Test
  void parameterGradients_accumulateAndStayLocal() {
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      List<SyncBatchNorm2d> norms = SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS));
      Threads.onEach(
          group,
          replica -> {
            for (int step = 0; step < 2; step++) {
              Tensor y = norms.get(replica.rank()).forward(torch.randn(2, CHANNELS, 2, 2));
              y.mul(new Scalar(replica.rank() + 1.0)).sum().backward();
            }
          });
      assertClose("rank 0", norms.get(0).bias().grad(), torch.full(new long[] {3}, scalar(16)));
      assertClose("rank 1", norms.get(1).bias().grad(), torch.full(new long[] {3}, scalar(32)));
    }
  }

  private static Scalar scalar(double value) {
    return new Scalar(value);
  }

  @Test
  void gradOfSomeInputs_leavesTheParametersGradientsAlone() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      BatchNorm2dImpl plain = plain();
      Tensor x = leaf(4, CHANNELS, 2, 2);
      Tensor dy = torch.randn_like(x);
      TensorVector found =
          torch.grad(
              new TensorVector(norm.forward(x).mul(dy).sum()), new TensorVector(x, norm.weight()));
      TensorVector expected =
          torch.grad(
              new TensorVector(plain.forward(x).mul(dy).sum()),
              new TensorVector(x, plain.weight()));
      assertClose("dx", found.get(0), expected.get(0));
      assertClose("dweight", found.get(1), expected.get(1));
      assertThat(norm.weight().grad().defined()).isFalse();
      assertThat(norm.bias().grad().defined()).isFalse();
    }
  }

  @Test
  void inputsWithoutGradient_getNone() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      Tensor x = torch.randn(4, CHANNELS, 2, 2);
      norm.forward(x).sum().backward();
      assertThat(norm.bias().grad().defined()).isTrue();
      assertThat(x.grad().defined()).isFalse();

      norm.zero_grad(true);
      norm.weight().requires_grad_(false);
      norm.bias().requires_grad_(false);
      Tensor leaf = leaf(4, CHANNELS, 2, 2);
      norm.forward(leaf).pow(scalar(3)).sum().backward();
      assertThat(leaf.grad().defined()).isTrue();
      assertThat(norm.weight().grad().defined()).isFalse();

      assertThat(norm.forward(x).requires_grad()).isFalse();
      try (AutoGradMode off = new AutoGradMode(false)) {
        assertThat(norm.forward(leaf).requires_grad()).isFalse();
      }
    }
  }

  @Test
  void graphThatIsRetained_canBeRunTwice_andOthersNot() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      Tensor x = leaf(4, CHANNELS, 2, 2);
      Tensor loss = norm.forward(x).pow(scalar(3)).sum();
      backward(loss, true, false);
      Tensor once = x.grad().clone();
      norm.forward(x);
      backward(loss, false, false);
      assertClose("dx", x.grad(), once.mul(scalar(2)));
      assertThatThrownBy(() -> backward(loss, false, false)).hasMessageContaining("second time");
    }
  }

  /** With the pass in use for another forward, and everything collected that nobody holds. */
  @Test
  void graphThatIsOver_isRefusedLongAfterwards() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      Tensor x = leaf(4, CHANNELS, 2, 2);
      Tensor y = norm.forward(x);
      Tensor loss = y.mul(scalar(2)).sum();
      backward(loss, false, false);
      norm.forward(x);
      for (int i = 0; i < 3; i++) {
        System.gc();
      }
      Tensor again = y.add(scalar(1)).sum();
      assertThatThrownBy(() -> backward(again, false, false)).hasMessageContaining("second time");
    }
  }

  @Test
  void gradientsOfGradients_areRefused() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      Tensor loss = alone(group).forward(leaf(4, CHANNELS, 2, 2)).pow(scalar(3)).sum();
      assertThatThrownBy(() -> backward(loss, true, true))
          .hasMessageContaining("UnsupportedOperationException")
          .hasMessageContaining("create_graph");
    }
  }

  @Test
  void whatBackwardReads_mustNotHaveChanged() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      Tensor x = leaf(4, CHANNELS, 2, 2).mul(scalar(1));
      Tensor loss = norm.forward(x).sum();
      x.add_(scalar(1));
      assertThatThrownBy(loss::backward).hasMessageContaining("modified by an inplace operation");

      Tensor next = norm.forward(leaf(4, CHANNELS, 2, 2)).sum();
      try (AutoGradMode off = new AutoGradMode(false)) {
        norm.weight().add_(scalar(1));
      }
      assertThatThrownBy(next::backward).hasMessageContaining("weight or bias");
    }
  }

  @Test
  void replicaWhoseOutputIsNotUsed_doesNotStopTheOthers() {
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      List<SyncBatchNorm2d> norms = SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS));
      Threads.onEach(
          group,
          replica -> {
            Tensor x = leaf(2, CHANNELS, 2, 2);
            Tensor y = norms.get(replica.rank()).forward(x);
            y.mul(scalar(replica.rank())).sum().backward();
            assertThat(x.grad().defined()).isTrue();
          });
    }
  }

  @Test
  void backwardOfAllReplicasInOneThread_isRefused() {
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      List<SyncBatchNorm2d> norms = SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS));
      List<Tensor> losses =
          Threads.fromEach(
              group, replica -> norms.get(replica.rank()).forward(leaf(2, CHANNELS, 2, 2)).sum());
      assertThatThrownBy(() -> losses.get(0).add(losses.get(1)).backward())
          .hasMessageContaining("a thread of its own");
    }
  }

  /** Its own part waits for the other, which is the same thread's. */
  @Test
  void backwardOfAllReplicasInTheThreadOfOne_ends() {
    try (ReplicaGroup group =
        ReplicaGroup.builder().cpus(2).timeout(Duration.ofMillis(300)).build()) {
      List<SyncBatchNorm2d> norms = SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS));
      CompletableFuture<Tensor> other = new CompletableFuture<>();
      assertThatThrownBy(
              () ->
                  Threads.fromEach(
                      group,
                      replica -> {
                        Tensor loss =
                            norms.get(replica.rank()).forward(leaf(2, CHANNELS, 2, 2)).sum();
                        if (replica.rank() == 1) {
                          other.complete(loss);
                        } else {
                          loss.add(other.join()).backward();
                        }
                        return loss;
                      }))
          .isInstanceOf(RuntimeException.class);
    }
  }

  @Test
  void failureInBackward_reachesTheUserWithItsCause() {
    try (ReplicaGroup group =
        ReplicaGroup.builder().cpus(2).timeout(Duration.ofMillis(300)).build()) {
      List<SyncBatchNorm2d> norms = SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS));
      assertThatThrownBy(
              () ->
                  Threads.onEach(
                      group,
                      replica -> {
                        Tensor y = norms.get(replica.rank()).forward(leaf(2, CHANNELS, 2, 2));
                        if (replica.rank() == 0) {
                          y.sum().backward();
                        }
                      }))
          .hasMessageContaining("CollectiveException");
      assertThat(group.failure()).containsInstanceOf(CollectiveException.class);
      assertThatThrownBy(() -> norms.get(0).forward(torch.randn(2, CHANNELS, 2, 2)))
          .isInstanceOf(CollectiveException.class);
    }
  }

  /** In a thread without a PointerScope, which would keep the network. */
  @Test
  void networkThatIsDropped_leavesItsBackwardToTheLoss() throws Exception {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      Tensor x = leaf(4, CHANNELS, 5, 5);
      Tensor weights = torch.randn(4, CHANNELS, 5, 5);
      CompletableFuture.runAsync(
              () -> {
                Tensor loss = alone(group).forward(x).mul(weights).sum();
                for (int i = 0; i < 3; i++) {
                  System.gc();
                  LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(50));
                }
                loss.backward();
              },
              task -> new Thread(task).start())
          .get(30, TimeUnit.SECONDS);
      assertThat(x.grad().norm().item_double()).isPositive();
    }
  }

  /** A step's tensors are 100 kB, so that 2,000 of them would be seen. */
  @Test
  void steps_doNotGrow() {
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      List<SyncBatchNorm2d> norms =
          SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS), true);
      long[][] bytes = new long[2][];
      for (int round = 0; round < 2; round++) {
        Threads.onEach(group, replica -> steps(norms.get(replica.rank()), 1000));
        System.gc();
        bytes[round] = new long[] {Pointer.physicalBytes(), Pointer.totalBytes()};
      }
      assertThat(bytes[1][0]).isLessThan(bytes[0][0] + (64 << 20));
      assertThat(bytes[1][1]).isLessThan(bytes[0][1] + (64 << 10));
    }
  }

  /** One forward in ten is not followed by a backward. */
  private static void steps(SyncBatchNorm2d norm, int count) {
    for (int i = 0; i < count; i++) {
      try (PointerScope step = new PointerScope()) {
        Tensor x = leaf(8, CHANNELS, 16, 16);
        Tensor y = norm.forward(x, x.mul(x));
        if (i % 10 != 0) {
          y.sum().backward();
        }
      }
    }
  }

  @Test
  void halves_goWithFloatParameters() {
    for (ScalarType type : List.of(ScalarType.Half, ScalarType.BFloat16)) {
      try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
        SyncBatchNorm2d norm = alone(group);
        Tensor x = torch.randn(4, CHANNELS, 2, 2).to(type);
        x.requires_grad_(true);
        Tensor y = norm.forward(x);
        y.pow(scalar(3)).sum().backward();
        assertThat(y.scalar_type().intern()).isEqualTo(type);
        assertThat(x.grad().scalar_type().intern()).isEqualTo(type);
        assertThat(norm.weight().grad().scalar_type().intern()).isEqualTo(ScalarType.Float);
        Tensor expected = plain().forward(x.detach().to(ScalarType.Float));
        assertThat(y.to(ScalarType.Float).sub(expected).abs().max().item_double()).isLessThan(0.02);
      }
    }
  }
}
