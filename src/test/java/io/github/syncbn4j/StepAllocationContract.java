package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.management.ManagementFactory;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What a step makes on the heap, whether it is compiled or not: the handle of its pass. */
@Timeout(60)
abstract class StepAllocationContract implements Devices {
  private static final int STEPS = 500;

  /** Of a {@link ForwardPass}: a header and two references, however long these are. */
  private static final int BYTES_OF_A_PASS = 32;

  private static final com.sun.management.ThreadMXBean THREAD =
      (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();

  @Test
  void stepOfOneReplica_makesItsPassOnly() {
    assertStepsMakeTheirPassOnly(8);
  }

  @Tag("several")
  @Test
  void stepOfSeveralReplicas_makesItsPassOnly() {
    assertStepsMakeTheirPassOnly(8, 5, 3);
  }

  private void assertStepsMakeTheirPassOnly(int... rows) {
    try (Job job = Job.of(this, 1, 0, 6, rows)) {
      List<DeviceTensor> x = job.xTensors;
      long step =
          bytesOf(
              () -> {
                ForwardPass pass = job.layer.forward(x, job.y, true);
                job.layer.backward(pass, job.dyTensors, job.dx);
                pass.close();
              });
      assertThat(step).as("bytes a step").isBetween(1L, (long) BYTES_OF_A_PASS);
      long inference = bytesOf(() -> job.layer.infer(x, job.y));
      assertThat(inference).as("bytes an inference").isLessThanOrEqualTo(BYTES_OF_A_PASS);
    }
  }

  /** Of one of many calls by this thread, after one that may load classes and take memory. */
  private static long bytesOf(Runnable call) {
    call.run();
    long before = THREAD.getCurrentThreadAllocatedBytes();
    for (int i = 0; i < STEPS; i++) {
      call.run();
    }
    return (THREAD.getCurrentThreadAllocatedBytes() - before) / STEPS;
  }
}
