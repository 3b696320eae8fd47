package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/**
 * Makes sure that tests of several replicas have the tag "several": gpu-verify runs all others on a
 * machine with one GPU, where they would be aborted.
 */
final class SeveralTag implements BeforeEachCallback, AfterEachCallback {
  private static volatile boolean isMissing;

  @Override
  public void beforeEach(ExtensionContext test) {
    isMissing = !test.getTags().contains("several");
  }

  @Override
  public void afterEach(ExtensionContext test) {
    isMissing = false;
  }

  static void require(int replicas) {
    assertThat(isMissing && replicas > 1)
        .as("a test of %d replicas lacks the tag \"several\"", replicas)
        .isFalse();
  }
}
