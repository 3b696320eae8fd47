package io.github.syncbn4j.sim;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/**
 * After every test on the simulated node: nothing was written around a living allocation, and no
 * device was left with an error, as a write that was found when its memory was freed leaves. JUnit
 * finds it by META-INF/services.
 */
public final class IntactMemory implements AfterEachCallback {
  @Override
  public void afterEach(ExtensionContext context) {
    if (context.getTags().contains("sim")) {
      assertThat(SimNode.overruns()).isEmpty();
      for (int device = 0; device < SimNode.devices(); device++) {
        assertThat(SimNode.failure(device)).as("device %d", device).isEmpty();
      }
    }
  }
}
