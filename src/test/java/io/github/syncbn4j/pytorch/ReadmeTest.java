package io.github.syncbn4j.pytorch;

import static org.assertj.core.api.Assertions.assertThat;
import static org.bytedeco.pytorch.global.torch.cross_entropy_loss;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Adam;
import org.bytedeco.pytorch.AdamOptions;
import org.bytedeco.pytorch.BatchNorm1dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.LinearImpl;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** README's first two pieces of Java are here, word for word, and run: see docs.JavaTest. */
class ReadmeTest extends ScopedTest {
  private static final int MOST_LINES = 12;
  private static final int FEATURES = 6;

  ReadmeTest() {
    super(17);
  }

  private static final class Net extends Module {
    final LinearImpl linear = register_module("linear", new LinearImpl(FEATURES, 4));
    final BatchNorm1dImpl norm =
        register_module("norm", new BatchNorm1dImpl(new BatchNormOptions(4)));

    Tensor forward(Tensor x) {
      return norm.forward(linear.forward(x));
    }
  }

  private record Batch(Tensor images, Tensor labels) {
    static Batch random() {
      return new Batch(torch.randn(5, FEATURES), torch.randint(4, new long[] {5}).to(LONG));
    }

    private static final torch.ScalarType LONG = torch.ScalarType.Long;
  }

  @Test
  void networksOnSeveralReplicas_stayTheSame() {
    List<Net> networks = Stream.generate(Net::new).limit(3).toList();
    List<List<Batch>> batches =
        Stream.generate(() -> Stream.generate(Batch::random).limit(2).toList()).limit(3).toList();
    Tensor before = networks.get(0).linear.weight().clone();
    try (ReplicaGroup group = ReplicaGroup.cpus(3)) {
      SyncBatchNorms.convert(group, networks);
      ReplicaThreads.run(
          group,
          replica -> {
            Net network = networks.get(replica.rank());
            DataParallel parallel = new DataParallel(replica, network);
            Adam optimizer = new Adam(network.parameters(), new AdamOptions(3e-3));
            for (Batch batch : batches.get(replica.rank())) {
              optimizer.zero_grad();
              cross_entropy_loss(network.forward(batch.images()), batch.labels()).backward();
              parallel.averageGradients();
              optimizer.step();
            }
          });
      Tensor weight = networks.get(0).linear.weight();
      assertThat(weight.equal(before)).isFalse();
      assertThat(networks.get(1).linear.weight().equal(weight)).isTrue();
      assertThat(networks.get(2).linear.weight().equal(weight)).isTrue();
      assertThat(networks.get(2).norm.running_var().equal(networks.get(0).norm.running_var()))
          .isTrue();
    }
  }

  @Test
  @Tag("sim")
  void layerAlone_runs() {
    try (ReplicaGroup group = ReplicaGroup.gpus();
        SyncBatchNormalization layer = SyncBatchNormalization.builder(group, 64).build()) {
      Supplier<List<DeviceTensor>> one =
          () ->
              group.replicas().stream()
                  .map(replica -> replica.allocate(DType.FLOAT32, 32, 7, 7, 64))
                  .toList();
      List<DeviceTensor> x = one.get(), y = one.get(), dy = one.get(), dx = one.get();
      try (ForwardPass pass = layer.forward(x, y, true)) {
        layer.backward(pass, dy, dx);
      }
      layer.allReduceGradients();
      layer.infer(x, y);
      group.synchronize();
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"## See it train", "## Use it"})
  void javaOfTheSection_hasAtMostTwelveLines(String section) throws IOException {
    String readme = Files.readString(Path.of("README.md"));
    int begin = readme.indexOf("```java\n", readme.indexOf(section)) + "```java\n".length();
    String java = readme.substring(begin, readme.indexOf("```", begin));
    assertThat(java.lines().count()).isBetween(5L, (long) MOST_LINES);
  }
}
