package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class SignatureTest {
  @Test
  void steps_areToldApart_andNoneIsZero() {
    assertThat(Signature.describe(Signature.of(0, 0, false)))
        .isEqualTo("layer 0, forward of step 0");
    assertThat(Signature.describe(Signature.of((1 << 19) - 1, (1L << 32) - 1, true)))
        .isEqualTo("layer 524287, backward of step 4294967295");
    assertThat(Signature.of(0, 0, false)).isNotZero();
    assertThat(Signature.of(1 << 19, 1L << 32, false)).isNotZero();
    assertThat(Signature.of(0, 0, false)).isNotEqualTo(Signature.of(0, 0, true));
  }

  @Test
  void whatIsNoSignature_isSaidSo() {
    for (double garbage : new double[] {0, -1, 0.5, Double.NaN, Double.POSITIVE_INFINITY, 1e300}) {
      assertThat(Signature.describe(garbage)).startsWith("no step at all");
    }
  }
}
