package io.github.syncbn4j.pytorch;

import static io.github.syncbn4j.pytorch.TorchAssertions.assertClose;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.Devices;
import io.github.syncbn4j.ReplicaGroup;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Networks of several replicas that exchange values and gradients; libtorch on the CPU. */
@Tag("several")
abstract class DataParallelContract extends ScopedTest implements Devices {
  private static final int REPLICAS = 3;

  DataParallelContract() {
    super(13);
  }

  /** Parameters and buffers of several types and sizes, with values of its own. */
  private static final class Net extends Module {
    final Tensor half = parameter("half", ScalarType.Half, 3);
    final Tensor matrix = parameter("matrix", ScalarType.Float, 2, 3);
    final Tensor precise = parameter("precise", ScalarType.Double, 5);
    final Tensor often = parameter("often", ScalarType.Float, 2);
    final Tensor never = parameter("never", ScalarType.Float, 2);
    final Tensor frozen = parameter("frozen", ScalarType.Float, 4);
    final Tensor flag = buffer("flag", torch.rand(3).gt(new Scalar(0.5)));
    final Tensor count = buffer("count", torch.randint(100, new long[0]).to(ScalarType.Long));
    final Tensor none = buffer("none", torch.empty(0));

    Net() {
      frozen.requires_grad_(false);
    }

    private Tensor parameter(String name, ScalarType type, long... shape) {
      return new Tensor(register_parameter(name, torch.randn(shape).to(type)));
    }

    private Tensor buffer(String name, Tensor values) {
      return new Tensor(register_buffer(name, values));
    }

    List<Tensor> all() {
      return List.of(half, matrix, precise, often, never, frozen, flag, count, none);
    }
  }

  private static List<Net> networks() {
    return IntStream.range(0, REPLICAS).mapToObj(rank -> new Net()).toList();
  }

  @Test
  void start_givesAllTheValuesOfRankZero() {
    List<Net> networks = networks();
    List<Tensor> expected = networks.get(0).all().stream().map(Tensor::clone).toList();
    try (ReplicaGroup group = group(REPLICAS)) {
      Threads.onEach(group, replica -> new DataParallel(replica, networks.get(replica.rank())));
      for (Net network : networks) {
        for (int i = 0; i < expected.size(); i++) {
          assertThat(network.all().get(i).equal(expected.get(i))).as("tensor %d", i).isTrue();
        }
        assertThat(network.matrix.requires_grad()).isTrue();
      }
    }
  }

  /** Of as many elements: the exchange alone would put them into each other. */
  @Test
  void networksThatDiffer_areRefused() {
    try (ReplicaGroup group = group(2)) {
      assertThatThrownBy(
              () ->
                  ReplicaThreads.run(
                      group,
                      replica -> {
                        Module network = new Module();
                        network.register_parameter("weight", torch.randn(2 + replica.rank(), 3));
                        network.register_parameter("bias", torch.randn(4 - 3 * replica.rank()));
                        new DataParallel(replica, network);
                      }))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("rank 1 has other parameters")
          .hasMessageContaining("weight Float[3, 3], bias Float[1]");
    }
  }

  private static Tensor numbers(int rank, long... shape) {
    return torch.arange(new Scalar(6)).narrow(0, 0, 6).add(new Scalar(10.0 * rank)).view(shape);
  }

  private static void setGradient(Tensor parameter, Tensor gradient) {
    parameter.mutable_grad().put(gradient.to(parameter.scalar_type()));
  }

  /**
   * Every type, one that lies otherwise than its parameter, one that not all replicas have. Thirds
   * of the Half ones are Half numbers too: any order of summing them gives the same.
   */
  private static void setGradients(Net network, int rank) {
    setGradient(network.half, torch.full(new long[] {3}, new Scalar(3 * rank + 1.5)));
    setGradient(network.matrix, numbers(rank, 3, 2).t());
    setGradient(network.precise, torch.full(new long[] {5}, new Scalar(1e-9 * rank)));
    if (rank > 0) {
      setGradient(network.often, torch.full(new long[] {2}, new Scalar(rank)));
    }
  }

  private static void requireGradients(Net network, double divisor) {
    Scalar by = new Scalar(divisor);
    assertClose(
        "half", gradient(network.half), torch.full(new long[] {3}, new Scalar(13.5)).div(by));
    Tensor sum = numbers(0, 3, 2).add(numbers(1, 3, 2)).add(numbers(2, 3, 2)).t();
    assertClose("matrix", network.matrix.grad(), sum.to(ScalarType.Float).div(by));
    assertThat(network.precise.grad().select(0, 4).item_double() * divisor)
        .isBetween(2.9999999e-9, 3.0000001e-9);
    assertClose(
        "often", gradient(network.often), torch.full(new long[] {2}, new Scalar(3)).div(by));
    assertThat(network.never.grad().defined()).isFalse();
    assertThat(network.frozen.grad().defined()).isFalse();
  }

  private static Tensor gradient(Tensor parameter) {
    return parameter.grad().to(ScalarType.Float);
  }

  @Test
  void gradients_areSummed() {
    requireExchanged(DataParallel::sumGradients, 1);
  }

  @Test
  void gradients_areAveraged() {
    requireExchanged(DataParallel::averageGradients, REPLICAS);
  }

  private void requireExchanged(Consumer<DataParallel> exchange, double divisor) {
    List<Net> networks = networks();
    try (ReplicaGroup group = group(REPLICAS)) {
      Threads.onEach(
          group,
          replica -> {
            Net network = networks.get(replica.rank());
            DataParallel parallel = new DataParallel(replica, network);
            setGradients(network, replica.rank());
            exchange.accept(parallel);
            requireGradients(network, divisor);
          });
    }
  }

  @Test
  void averageOfHalfGradients_isWithinTheirRange() {
    List<Net> networks = networks();
    try (ReplicaGroup group = group(REPLICAS)) {
      Threads.onEach(
          group,
          replica -> {
            Net network = networks.get(replica.rank());
            DataParallel parallel = new DataParallel(replica, network);
            setGradient(network.half, torch.full(new long[] {3}, new Scalar(60_000)));
            parallel.averageGradients();
            assertThat(network.half.grad().select(0, 0).item_double()).isBetween(59e3, 61e3);
          });
    }
  }

  @Test
  void sparseGradient_isRefusedByName() {
    Net network = new Net();
    try (ReplicaGroup group = group(1)) {
      DataParallel parallel = new DataParallel(group.replica(0), network);
      network.matrix.mutable_grad().put(numbers(0, 2, 3).to(ScalarType.Float).to_sparse());
      assertThatThrownBy(parallel::sumGradients)
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessage("the gradient of matrix is Sparse: dense gradients are summed");
    }
  }

  @Test
  void complexParameter_isRefusedByName() {
    Module network = new Module();
    network.register_parameter("phase", torch.zeros(2).to(ScalarType.ComplexFloat));
    try (ReplicaGroup group = group(1)) {
      DataParallel parallel = new DataParallel(group.replica(0), network);
      assertThatThrownBy(parallel::averageGradients)
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageStartingWith("phase is ComplexFloat: gradients are summed in");
    }
  }

  @Test
  void networkWithoutParameters_hasNothingToDo() {
    try (ReplicaGroup group = group(2)) {
      Threads.onEach(group, replica -> new DataParallel(replica, new Module()).averageGradients());
    }
  }
}
