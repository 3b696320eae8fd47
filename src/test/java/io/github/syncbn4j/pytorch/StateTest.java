package io.github.syncbn4j.pytorch;

import static io.github.syncbn4j.pytorch.TorchAssertions.assertClose;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.ReplicaGroup;
import java.nio.file.Path;
import java.util.List;
import org.bytedeco.pytorch.Adam;
import org.bytedeco.pytorch.AdamOptions;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.DoubleOptional;
import org.bytedeco.pytorch.InputArchive;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.OutputArchive;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Parameters, buffers and options. */
class StateTest extends ScopedTest {
  private static final long CHANNELS = 3;

  StateTest() {
    super(9);
  }

  private static BatchNormOptions options() {
    return new BatchNormOptions(CHANNELS);
  }

  private static Tensor batch() {
    return torch.randn(4, CHANNELS, 2, 2).mul(new Scalar(3)).add(new Scalar(1));
  }

  private static void save(Module module, Path file) {
    OutputArchive archive = new OutputArchive();
    module.save(archive);
    archive.save_to(file.toString());
  }

  private static void load(Module module, Path file) {
    InputArchive archive = new InputArchive();
    archive.load_from(file.toString());
    module.load(archive);
  }

  @Test
  void savedByOne_isLoadedByTheOther(@TempDir Path folder) {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d first = SyncBatchNorm2d.replicas(group, options()).get(0);
      BatchNorm2dImpl plain = new BatchNorm2dImpl(options());
      SyncBatchNorm2d second = SyncBatchNorm2d.replicas(group, options()).get(0);
      first.weight().detach().fill_(new Scalar(2));
      first.forward(batch());
      first.forward(batch());
      Path file = folder.resolve("norm.pt");
      save(first, file);
      load(plain, file);
      assertThat(plain.num_batches_tracked().item_long()).isEqualTo(2);
      assertClose("running_mean", plain.running_mean(), first.running_mean());

      plain.forward(batch());
      save(plain, file);
      load(second, file);
      plain.eval();
      second.eval();
      Tensor x = batch();
      assertClose("y", second.forward(x), plain.forward(x));
      plain.train(true);
      second.train(true);
      assertClose("y", second.forward(x), plain.forward(x));
      assertClose("running_var", second.running_var(), plain.running_var());
      assertThat(second.num_batches_tracked().item_long()).isEqualTo(4);
    }
  }

  @Test
  void optimizer_takesTheSameSteps() {
    BatchNorm2dImpl plain = new BatchNorm2dImpl(options());
    Adam plainAdam = new Adam(plain.parameters(), new AdamOptions(0.05));
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = SyncBatchNorm2d.replicas(group, options()).get(0);
      Adam adam = new Adam(norm.parameters(), new AdamOptions(0.05));
      for (int step = 0; step < 8; step++) {
        Tensor x = batch();
        adam.zero_grad();
        plainAdam.zero_grad();
        norm.forward(x).pow(new Scalar(3)).sum().backward();
        plain.forward(x).pow(new Scalar(3)).sum().backward();
        adam.step();
        plainAdam.step();
      }
      assertClose("weight", norm.weight(), plain.weight());
      assertClose("bias", norm.bias(), plain.bias());
      assertThat(norm.weight().equal(torch.ones(CHANNELS))).isFalse();
    }
  }

  /** Not momentum 0: then the running statistics never change. */
  @ParameterizedTest
  @ValueSource(doubles = {-1, 0.3, 1})
  void momentum_isLibtorchs(double momentum) {
    BatchNormOptions options = options();
    options.eps().put(0.1);
    options.momentum().put(momentum < 0 ? new DoubleOptional() : new DoubleOptional(momentum));
    BatchNorm2dImpl plain = new BatchNorm2dImpl(options);
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = SyncBatchNorm2d.replicas(group, options).get(0);
      for (int step = 0; step < 3; step++) {
        Tensor x = batch();
        assertClose("y", norm.forward(x), plain.forward(x));
      }
      assertClose("running_mean", norm.running_mean(), plain.running_mean());
      assertClose("running_var", norm.running_var(), plain.running_var());
      norm.reset_running_stats();
      plain.reset_running_stats();
      norm.eval();
      plain.eval();
      Tensor x = batch();
      assertClose("y", norm.forward(x), plain.forward(x));
      assertThat(norm.num_batches_tracked().item_long()).isZero();
    }
  }

  @Test
  void resetParameters_resetsTheStatisticsToo() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = SyncBatchNorm2d.replicas(group, options()).get(0);
      norm.forward(batch().add(new Scalar(3)));
      norm.reset_parameters();
      norm.eval();
      BatchNorm2dImpl fresh = new BatchNorm2dImpl(options());
      fresh.eval();
      Tensor x = batch();
      assertClose("y", norm.forward(x), fresh.forward(x));
    }
  }

  @Test
  void withoutParametersAndStatistics_itUsesTheBatchAlways() {
    BatchNormOptions options = options();
    options.affine().put(false);
    options.track_running_stats().put(false);
    BatchNorm2dImpl plain = new BatchNorm2dImpl(options);
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SyncBatchNorm2d norm = SyncBatchNorm2d.replicas(group, options).get(0);
      assertThat(norm.parameters().size()).isZero();
      assertThat(norm.buffers().size()).isZero();
      assertThat(norm.running_mean().defined()).isFalse();
      for (boolean training : new boolean[] {true, false}) {
        norm.train(training);
        plain.train(training);
        Tensor x = batch();
        Tensor y = batch();
        x.requires_grad_(true);
        y.copy_(x.detach());
        y.requires_grad_(true);
        norm.forward(x).pow(new Scalar(3)).sum().backward();
        plain.forward(y).pow(new Scalar(3)).sum().backward();
        assertClose("dx", x.grad(), y.grad());
      }
    }
  }

  @Test
  void statistics_outliveTheGroup() {
    SyncBatchNorm2d norm;
    BatchNorm2dImpl plain = new BatchNorm2dImpl(options());
    Tensor x = batch();
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      norm = SyncBatchNorm2d.replicas(group, options()).get(0);
      norm.forward(x);
    }
    plain.forward(x);
    assertClose("running_var", norm.running_var(), plain.running_var());
    assertThatThrownBy(() -> norm.forward(x)).isInstanceOf(IllegalStateException.class);
  }

  @Test
  void allReplicas_haveTheSameStatisticsBitForBit() {
    try (ReplicaGroup group = ReplicaGroup.cpus(3)) {
      List<SyncBatchNorm2d> norms = SyncBatchNorm2d.replicas(group, options());
      Threads.onEach(group, replica -> norms.get(replica.rank()).forward(batch()));
      for (SyncBatchNorm2d norm : norms) {
        assertThat(norm.running_var().equal(norms.get(0).running_var())).isTrue();
        assertThat(norm.running_mean().equal(norms.get(0).running_mean())).isTrue();
      }
    }
  }
}
