package io.github.syncbn4j.failures;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.sim.SimNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** NCCL's functions for a smaller group fail once: here two ranks are in one process. */
@Tag("sim")
@Timeout(60)
class SplitFaultsTest {
  private static final int NCCL_SYSTEM_ERROR = 2;
  private static final Duration TIMEOUT = Duration.ofSeconds(1);

  @ParameterizedTest
  @ValueSource(strings = {"ncclCommSplit", "ncclCommCount", "ncclCommUserRank"})
  void functionThatFails_isTold_andNothingLeaks(String function) throws Exception {
    Map<String, Long> before = SimFailuresTest.live();
    byte[] id = ReplicaGroup.newUniqueId();
    ExecutorService threads = Executors.newFixedThreadPool(2);
    List<Callable<RuntimeException>> ranks = new ArrayList<>();
    SimNode.fail(function, 1, NCCL_SYSTEM_ERROR);
    try {
      for (int rank = 0; rank < 2; rank++) {
        ReplicaGroup.Builder builder =
            ReplicaGroup.builder().rank(id, 2, rank, rank).timeout(TIMEOUT);
        ranks.add(() -> split(builder));
      }
      List<RuntimeException> thrown = new ArrayList<>();
      for (Future<RuntimeException> end : threads.invokeAll(ranks)) {
        thrown.add(end.get(30, TimeUnit.SECONDS));
      }
      thrown.removeIf(Objects::isNull);
      assertThat(thrown)
          .anySatisfy(
              e -> assertThat(e).isInstanceOf(DeviceException.class).hasMessageContaining(function))
          .allSatisfy(
              e -> assertThat(e).isInstanceOfAny(DeviceException.class, CollectiveException.class));
    } finally {
      SimNode.fail(function, 0, 0);
      threads.shutdownNow();
    }
    assertThat(SimFailuresTest.live()).isEqualTo(before);
  }

  /** What was thrown; null for nothing. */
  private static RuntimeException split(ReplicaGroup.Builder builder) {
    try (ReplicaGroup all = builder.build();
        ReplicaGroup part = all.split(0, 0)) {
      return part.size() == 2 ? null : new IllegalStateException("ranks: " + part.size());
    } catch (RuntimeException e) {
      return e;
    }
  }
}
