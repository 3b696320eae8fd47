package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.ReplicaGroup;
import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.global.torch.MemoryFormat;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** libtorch on the CPU, the layer on simulated GPUs: tensors are copied there and back. */
@Tag("sim")
class SimSyncBatchNormTest {
  static Stream<Comparison> comparisons() {
    List<Integer> parts = List.of(2, 3, 1);
    List<Long> image = List.of(4L, 5L, 3L);
    return Stream.of(
        new Comparison(ScalarType.Float, MemoryFormat.Contiguous, true, parts, image),
        new Comparison(ScalarType.Float, MemoryFormat.ChannelsLast, true, parts, image),
        new Comparison(ScalarType.Double, MemoryFormat.Contiguous, true, parts, List.of(5L)),
        new Comparison(ScalarType.Float, MemoryFormat.Contiguous, false, parts, image));
  }

  @ParameterizedTest
  @MethodSource("comparisons")
  void outputsGradientsAndStatistics_areLibtorchsOfTheWholeBatch(Comparison comparison) {
    int[] ordinals = IntStream.range(0, comparison.parts().size()).toArray();
    comparison.run(
        ReplicaGroup.gpus(ordinals),
        new BatchNormOptions(comparison.example().get(0)),
        (norm, x) -> norm.apply(norm.apply(x.mul(x)).relu_().add(x)));
  }
}
