package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.DType;
import java.util.ArrayList;
import java.util.List;

/** Which problems are timed. */
public enum Suite {
  /** The twelve shapes that ResNet-50 normalizes, at 16 images. */
  resnet50 {
    @Override
    List<Problem> problems() {
      int[][] channelsAndSides = {
        {64, 112}, {64, 56}, {128, 56}, {256, 56}, {128, 28}, {256, 28},
        {512, 28}, {256, 14}, {512, 14}, {1024, 14}, {512, 7}, {2048, 7}
      };
      List<Problem> problems = new ArrayList<>();
      for (int[] shape : channelsAndSides) {
        for (DType dtype : DTYPES) {
          addBothLayouts(problems, 16, shape[0], shape[1], dtype, true, Pass.PLAIN);
        }
      }
      return problems;
    }
  },
  /** Tensors below 1 MB that stay in the cache, and few channels. */
  small {
    @Override
    List<Problem> problems() {
      List<Problem> problems = new ArrayList<>();
      for (DType dtype : DTYPES) {
        addBothLayouts(problems, 4, 64, 14, dtype, false, EVERY_PASS);
        addBothLayouts(problems, 2, 256, 7, dtype, false, EVERY_PASS);
        addBothLayouts(problems, 16, 1, 64, dtype, false, EVERY_PASS);
        addBothLayouts(problems, 8, 3, 64, dtype, false, EVERY_PASS);
        problems.add(Problem.of(this, 128, 1031, List.of(), true, dtype, false, EVERY_PASS));
      }
      return problems;
    }
  },
  /** One kind of image in ever larger batches: x from 0.2 to 51 MB of float32. */
  sweep {
    @Override
    List<Problem> problems() {
      List<Problem> problems = new ArrayList<>();
      for (int images = 1; images <= 256; images *= 4) {
        for (DType dtype : DTYPES) {
          for (boolean cold : new boolean[] {true, false}) {
            addBothLayouts(problems, images, 64, 28, dtype, cold, EVERY_PASS);
          }
        }
      }
      return problems;
    }
  };

  private static final List<DType> DTYPES = List.of(DType.FLOAT32, DType.BFLOAT16, DType.FLOAT16);
  private static final List<Pass> EVERY_PASS = List.of(Pass.values());

  abstract List<Problem> problems();

  void addBothLayouts(
      List<Problem> problems,
      int images,
      int channels,
      int side,
      DType dtype,
      boolean cold,
      List<Pass> passes) {
    for (boolean channelsLast : new boolean[] {false, true}) {
      problems.add(
          Problem.of(
              this, images, channels, List.of(side, side), channelsLast, dtype, cold, passes));
    }
  }
}
