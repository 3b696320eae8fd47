package io.github.syncbn4j.pytorch;

import static io.github.syncbn4j.pytorch.TorchAssertions.assertClose;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.ReplicaGroup;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.BatchNorm1dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.LinearImpl;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.ModuleListImpl;
import org.bytedeco.pytorch.ReLUImpl;
import org.bytedeco.pytorch.SGD;
import org.bytedeco.pytorch.SGDOptions;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.SequentialImpl;
import org.bytedeco.pytorch.StringTensorDict;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;

class SyncBatchNormsTest extends ScopedTest {
  private static final int FEATURES = 4;

  SyncBatchNormsTest() {
    super(3);
  }

  private static BatchNormOptions options() {
    return new BatchNormOptions(FEATURES);
  }

  /** Part of a network, in a list, with a final field. */
  static final class Block extends Module {
    private final BatchNorm1dImpl norm = register_module("norm", new BatchNorm1dImpl(options()));

    Tensor forward(Tensor x) {
      return norm.forward(x).relu_().add(x);
    }
  }

  /** Batch norms in every place in which they can be converted. */
  static final class Net extends Module {
    BatchNorm1dImpl first = register_module("first", new BatchNorm1dImpl(options()));
    final LinearImpl linear = register_module("linear", new LinearImpl(FEATURES, FEATURES));
    final List<Block> blocks =
        List.of(register_module("block0", new Block()), register_module("block1", new Block()));
    final BatchNorm1dImpl[] array = {register_module("array", new BatchNorm1dImpl(options()))};
    final Map<String, BatchNorm1dImpl> map =
        new HashMap<>(Map.of("key", register_module("map", new BatchNorm1dImpl(options()))));
    final SequentialImpl sequential;

    Net() {
      SequentialImpl made = new SequentialImpl();
      made.push_back("linear", new LinearImpl(FEATURES, FEATURES));
      made.push_back("norm", new BatchNorm1dImpl(options()));
      made.push_back("relu", new ReLUImpl());
      sequential = register_module("sequential", made);
    }

    Tensor forward(Tensor x) {
      Tensor y = linear.forward(first.forward(x));
      for (Block block : blocks) {
        y = block.forward(y);
      }
      return sequential.forward(map.get("key").forward(array[0].forward(y)));
    }
  }

  private static void copy(Module from, Module to) {
    List<StringTensorDict> source = List.of(from.named_parameters(), from.named_buffers());
    List<StringTensorDict> target = List.of(to.named_parameters(), to.named_buffers());
    for (int kind = 0; kind < source.size(); kind++) {
      for (long i = 0; i < source.get(kind).size(); i++) {
        target.get(kind).get(i).value().detach().copy_(source.get(kind).get(i).value().detach());
      }
    }
  }

  private static List<String> names(Module module) {
    List<String> names = new ArrayList<>();
    for (StringTensorDict tensors : List.of(module.named_parameters(), module.named_buffers())) {
      for (long i = 0; i < tensors.size(); i++) {
        names.add(tensors.get(i).key().getString());
      }
    }
    return names;
  }

  private static Tensor part(Tensor x, int rank) {
    return x.narrow(0, 4 * rank, 4);
  }

  /** Steps with gradients that are summed over the replicas here. */
  private static void steps(ReplicaGroup group, Net whole, List<Net> nets, List<SGD> optimizers) {
    for (int step = 0; step < 3; step++) {
      Tensor x = torch.randn(8, FEATURES);
      Tensor target = torch.randn(8, FEATURES);
      Tensor y = whole.forward(x);
      optimizers.get(2).zero_grad();
      y.sub(target).pow(new Scalar(2)).sum().backward();
      List<Tensor> outputs =
          Threads.fromEach(
              group,
              replica -> {
                int rank = replica.rank();
                optimizers.get(rank).zero_grad();
                Tensor output = nets.get(rank).forward(part(x, rank));
                output.sub(part(target, rank)).pow(new Scalar(2)).sum().backward();
                return output.detach();
              });
      assertClose("y", torch.cat(new TensorVector(outputs.toArray(Tensor[]::new))), y);
      TensorVector first = nets.get(0).parameters();
      TensorVector second = nets.get(1).parameters();
      for (long i = 0; i < first.size(); i++) {
        Tensor sum = first.get(i).grad().add(second.get(i).grad());
        first.get(i).mutable_grad().copy_(sum);
        second.get(i).mutable_grad().copy_(sum);
      }
      optimizers.forEach(SGD::step);
    }
  }

  @Test
  void networkThatIsConverted_isThatOfTheWholeBatch_andGoesOnAfterBeingReverted() {
    Net whole = new Net();
    List<Net> nets = List.of(new Net(), new Net());
    nets.forEach(net -> copy(whole, net));
    List<SGD> optimizers = new ArrayList<>();
    for (Net net : List.of(nets.get(0), nets.get(1), whole)) {
      optimizers.add(new SGD(net.parameters(), new SGDOptions(0.01)));
    }
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      assertThat(SyncBatchNorms.convert(group, nets)).isEqualTo(nets);
      assertThat(names(nets.get(0))).isEqualTo(names(whole));
      assertThat(nets.get(1).first).isInstanceOf(SyncBatchNorm1d.class);
      assertThat(nets.get(1).blocks.get(1).norm).isInstanceOf(SyncBatchNorm1d.class);
      steps(group, whole, nets, optimizers);
      assertThat(SyncBatchNorms.convert(group, nets)).isEqualTo(nets);
      steps(group, whole, nets, optimizers);

      SyncBatchNorms.revert(nets);
    }
    assertThat(nets.get(1).first.getClass()).isEqualTo(BatchNorm1dImpl.class);
    assertThat(nets.get(1).sequential.getClass()).isEqualTo(SequentialImpl.class);
    whole.eval();
    for (Net net : nets) {
      net.eval();
      for (String name : names(whole)) {
        assertClose(name, Comparison.named(net, name), Comparison.named(whole, name));
      }
      Tensor x = torch.randn(8, FEATURES);
      assertClose("y", net.forward(x), whole.forward(x));
    }
  }

  @Test
  void rootThatIsItselfOne_isReturned() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SequentialImpl sequential = new SequentialImpl();
      sequential.push_back("norm", new BatchNorm1dImpl(options()));
      SequentialImpl synced = SyncBatchNorms.convert(group, List.of(sequential)).get(0);
      Tensor x = torch.randn(5, FEATURES);
      Tensor y = synced.forward(x);
      assertThat(SyncBatchNorms.revert(List.of(synced)).get(0)).isSameAs(sequential);
      assertClose("y", sequential.forward(x), y);
    }
  }

  @Test
  void forwardThatDoesNotPassByJava_isRefused() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      SequentialImpl sequential = new SequentialImpl();
      sequential.push_back("norm", new BatchNorm1dImpl(options()));
      SyncBatchNorms.convert(group, List.of(sequential));
      Tensor x = torch.randn(5, FEATURES);
      assertThatThrownBy(() -> sequential.forward(x)).hasMessageContaining("running_mean");
    }
  }

  @Test
  void originalOfWhatIsSynchronized_isNotConvertedAgain() {
    for (boolean tracked : new boolean[] {true, false}) {
      BatchNormOptions options = options();
      options.track_running_stats().put(tracked);
      try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
        BatchNorm1dImpl original = new BatchNorm1dImpl(options);
        BatchNorm1dImpl synced = SyncBatchNorms.convert(group, List.of(original)).get(0);
        assertThatThrownBy(() -> SyncBatchNorms.convert(group, List.of(original)))
            .isInstanceOf(IllegalArgumentException.class)
            .hasMessageContaining("synchronized already");
        synced.forward(torch.randn(5, FEATURES));
        SyncBatchNorms.revert(List.of(synced));
        SyncBatchNorms.convert(group, List.of(original));
      }
    }
  }

  static final class Hidden extends Module {
    final ModuleListImpl list = new ModuleListImpl();

    Hidden() {
      list.push_back(new BatchNorm1dImpl(options()));
      register_module("list", list);
    }
  }

  static final class Fixed extends Module {
    final List<BatchNorm1dImpl> norms =
        List.of(register_module("norm", new BatchNorm1dImpl(options())));
  }

  static final class Fused extends Module {
    SyncBatchNorm2d norm;
  }

  @Test
  void networksThatCannotBeConverted_areRefusedAsAWhole() {
    try (ReplicaGroup one = ReplicaGroup.cpus(1);
        ReplicaGroup two = ReplicaGroup.cpus(2)) {
      assertThatThrownBy(() -> SyncBatchNorms.convert(one, List.of(new Hidden())))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("[list.0]");
      assertThatThrownBy(() -> SyncBatchNorms.convert(one, List.of(new Fixed())))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("Fixed.norms[0] cannot be changed");
      assertThatThrownBy(() -> SyncBatchNorms.convert(two, List.of(new Net())))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("1 networks for 2 replicas");
      Net same = new Net();
      assertThatThrownBy(() -> SyncBatchNorms.convert(two, List.of(same, same)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("listed twice");
      assertThatThrownBy(
              () -> SyncBatchNorms.convert(two, Arrays.<Module>asList(new Net(), new Block())))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("the networks differ");

      BatchNormOptions other = options();
      other.eps().put(0.5);
      BatchNorm1dImpl usual = new BatchNorm1dImpl(options());
      assertThatThrownBy(
              () -> SyncBatchNorms.convert(two, List.of(usual, new BatchNorm1dImpl(other))))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("eps=0.5");
      usual.forward(torch.randn(5, FEATURES));

      Fused fused = new Fused();
      fused.norm = SyncBatchNorm2d.replicas(one, options()).get(0);
      fused.register_module("norm", fused.norm);
      assertThatThrownBy(() -> SyncBatchNorms.revert(List.of(fused)))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("Fused.norm is declared SyncBatchNorm2d");
      assertThat(fused.norm.forward(torch.randn(2, FEATURES, 1, 1)).defined()).isTrue();
    }
  }
}
