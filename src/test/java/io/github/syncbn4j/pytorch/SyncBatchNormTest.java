package io.github.syncbn4j.pytorch;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.MemoryFormat;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class SyncBatchNormTest {
  static List<Comparison> comparisons() {
    List<Comparison> all = new ArrayList<>();
    for (ScalarType type : List.of(ScalarType.Float, ScalarType.Double)) {
      for (boolean training : new boolean[] {true, false}) {
        for (List<Integer> parts : List.of(List.of(3, 3), List.of(1, 4, 2, 2))) {
          all.add(new Comparison(type, MemoryFormat.Contiguous, training, parts, List.of(5L)));
          all.add(new Comparison(type, MemoryFormat.Contiguous, training, parts, List.of(3L, 7L)));
          for (MemoryFormat format : List.of(MemoryFormat.Contiguous, MemoryFormat.ChannelsLast)) {
            all.add(new Comparison(type, format, training, parts, List.of(4L, 5L, 3L)));
          }
          for (MemoryFormat format :
              List.of(MemoryFormat.Contiguous, MemoryFormat.ChannelsLast3d)) {
            all.add(new Comparison(type, format, training, parts, List.of(3L, 2L, 3L, 4L)));
          }
        }
      }
    }
    List<Integer> oneEmpty = List.of(4, 0);
    all.add(
        new Comparison(
            ScalarType.Float, MemoryFormat.Contiguous, true, oneEmpty, List.of(3L, 2L, 2L)));
    return all;
  }

  @ParameterizedTest
  @MethodSource("comparisons")
  void outputsGradientsAndStatistics_areLibtorchsOfTheWholeBatch(Comparison comparison) {
    comparison.run(new BatchNormOptions(comparison.example().get(0)), (norm, x) -> norm.apply(x));
  }

  @ParameterizedTest
  @MethodSource("comparisons")
  void inPlaceReluResidualBranchAndSecondUse_areLibtorchs(Comparison comparison) {
    comparison.run(
        new BatchNormOptions(comparison.example().get(0)),
        (norm, x) -> {
          Tensor branch = norm.apply(x.mul(x)).relu_();
          return norm.apply(branch.add(x)).add(x).relu_();
        });
  }
}
