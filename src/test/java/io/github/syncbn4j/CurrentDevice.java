package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.SizeTPointer;

/** How much of the current CUDA device's memory anybody has, the library or others. */
final class CurrentDevice {
  private CurrentDevice() {}

  static long freeBytes() {
    return bytes()[0];
  }

  static long usedBytes() {
    long[] bytes = bytes();
    return bytes[1] - bytes[0];
  }

  private static long[] bytes() {
    try (SizeTPointer free = new SizeTPointer(1);
        SizeTPointer total = new SizeTPointer(1)) {
      assertThat(cudart.cudaMemGetInfo(free, total)).isEqualTo(cudart.cudaSuccess);
      return new long[] {free.get(), total.get()};
    }
  }
}
