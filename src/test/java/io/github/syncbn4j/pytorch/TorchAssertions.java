package io.github.syncbn4j.pytorch;

import static org.assertj.core.api.Assertions.assertThat;

import org.bytedeco.pytorch.AutoGradMode;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** Comparison of libtorch's tensors. */
final class TorchAssertions {
  private TorchAssertions() {}

  /**
   * Every element is within a few hundred units in the last place of the tensor's largest: sums in
   * another order, no more.
   */
  @SuppressWarnings("try")
  static void assertClose(String name, Tensor actual, Tensor expected) {
    double tolerance = expected.scalar_type().intern() == ScalarType.Double ? 1e-13 : 2e-5;
    try (AutoGradMode ignored = new AutoGradMode(false)) {
      assertThat(actual.shape()).as(name).isEqualTo(expected.shape());
      assertThat(actual.scalar_type().intern()).as(name).isEqualTo(expected.scalar_type().intern());
      if (expected.numel() == 0) {
        return;
      }
      double largest = Math.max(1, expected.abs().max().item_double());
      assertThat(actual.sub(expected).abs().max().item_double())
          .as(name)
          .isLessThanOrEqualTo(tolerance * largest);
    }
  }
}
