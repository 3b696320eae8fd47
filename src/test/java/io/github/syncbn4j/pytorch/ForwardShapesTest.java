package io.github.syncbn4j.pytorch;

import static io.github.syncbn4j.pytorch.TorchAssertions.assertClose;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.ReplicaGroup;
import java.util.List;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

/** Which tensors a module normalizes, and which it refuses. */
@SuppressWarnings("try")
class ForwardShapesTest extends ScopedTest {
  private static final long CHANNELS = 3;

  ForwardShapesTest() {
    super(5);
  }

  private static SyncBatchNorm2d alone(ReplicaGroup group) {
    return SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS)).get(0);
  }

  private static BatchNorm2dImpl plain() {
    return new BatchNorm2dImpl(new BatchNormOptions(CHANNELS));
  }

  @Test
  void tensorsThatDoNotFit_areRefused() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      assertThatThrownBy(() -> norm.forward(torch.randn(4, CHANNELS)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("[4, 3]");
      assertThatThrownBy(() -> norm.forward(torch.randn(4, CHANNELS + 1, 2, 2)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> norm.forward(torch.randn(4, CHANNELS, 2, 2).to(ScalarType.Double)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("Double parameters");
      assertThatThrownBy(() -> norm.forward(torch.ones(4, CHANNELS, 2, 2).to(ScalarType.Long)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("Long");
      norm.to(ScalarType.Double, false);
      assertThatThrownBy(() -> norm.forward(torch.randn(4, CHANNELS, 2, 2)))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("weight is now Double[3] on cpu");
    }
  }

  @Test
  void undefinedTensors_areRefusedByName() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      assertThatThrownBy(() -> norm.forward(new Tensor()))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage("x is an undefined tensor");
      assertThatThrownBy(() -> norm.forward(torch.randn(4, CHANNELS, 2, 2), new Tensor()))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage("the residual is an undefined tensor");
    }
  }

  @Test
  void oneValueAChannel_isRefusedInTraining() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = alone(group);
      Tensor x = torch.randn(1, CHANNELS, 1, 1);
      assertThatThrownBy(() -> norm.forward(x))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage(
              "expected more than 1 value per channel when training, got x of shape [1, 3, 1, 1]");
      norm.eval();
      BatchNorm2dImpl plain = plain();
      plain.eval();
      assertClose("y", norm.forward(x), plain.forward(x));
    }
  }

  /** The whole batch has two values a channel. */
  @Test
  void oneValueAChannelAndReplica_isNormalized() {
    Tensor whole = torch.randn(2, CHANNELS, 1, 1);
    Tensor expected = plain().forward(whole);
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      List<SyncBatchNorm2d> norms = SyncBatchNorm2d.replicas(group, new BatchNormOptions(CHANNELS));
      Threads.onEach(
          group,
          replica -> {
            int rank = replica.rank();
            Tensor y = norms.get(rank).forward(whole.narrow(0, rank, 1));
            assertClose("rank " + rank, y, expected.narrow(0, rank, 1));
          });
    }
  }
}
