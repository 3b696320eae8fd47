package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

/** Bad arguments, and what is said of them. */
final class Refusals {
  private Refusals() {}

  static void assertIllegal(Runnable call, String... texts) {
    assertThatThrownBy(call::run)
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContainingAll(texts);
  }
}
