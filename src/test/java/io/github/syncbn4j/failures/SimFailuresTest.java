package io.github.syncbn4j.failures;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.sim.SimNode;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Failures of one rank of three simulated GPUs in one process: {@code docs/failures.md}. */
@Tag("sim")
@Timeout(60)
class SimFailuresTest extends OneProcess {
  private static final int OUT_OF_MEMORY = 2;
  private static final int ILLEGAL_ADDRESS = 700;
  private static final int LAUNCH_FAILURE = 719;
  private static final int NCCL_SYSTEM_ERROR = 2;
  private static final FailureTable ONE_THREAD = new FailureTable("One thread for all GPUs");
  private static final FailureTable THREADS = new FailureTable("A thread a GPU");

  private Map<String, Long> liveBefore;

  @BeforeEach
  void noteWhatLives() {
    liveBefore = live();
  }

  @AfterEach
  void nothingLeaks() {
    assertThat(live()).isEqualTo(liveBefore);
  }

  static Map<String, Long> live() {
    Map<String, Long> live = new TreeMap<>();
    for (String kind :
        List.of("memory", "streams", "events", "hostMemory", "communicators", "graphs")) {
      live.put(kind, SimNode.live(kind));
    }
    return live;
  }

  @AfterAll
  static void pageSaysSo() throws Exception {
    ONE_THREAD.addNone(Failure.WRONG_ORDER, "the one thread comes with all GPUs to the same layer");
    ONE_THREAD.finish();
    THREADS.finish();
  }

  @Override
  ReplicaGroup group(Duration timeout) {
    return ReplicaGroup.builder().gpus(0, 1, 2).timeout(timeout).build();
  }

  @Override
  void injectDeath(Failure failure, int rank, int kernelsBefore, int collectivesBefore) {
    if (failure == Failure.DIES_IN) {
      SimNode.fail("ncclAllReduce", collectivesBefore + 1, NCCL_SYSTEM_ERROR);
    } else {
      SimNode.fail("cudaLaunchKernelExC", kernelsBefore + 1, LAUNCH_FAILURE);
    }
  }

  @Override
  void injectOutOfMemory(int allocationsBefore) {
    SimNode.fail("cudaMalloc", allocationsBefore + 1, OUT_OF_MEMORY);
  }

  @Override
  void stall(int rank, boolean on) {
    SimNode.stall(rank, on);
  }

  @Override
  void takeBack() {
    for (String function : List.of("ncclAllReduce", "cudaLaunchKernelExC", "cudaMalloc")) {
      SimNode.fail(function, 0, 0);
    }
    for (int gpu = 0; gpu < REPLICAS; gpu++) {
      SimNode.stall(gpu, false);
    }
  }

  @ParameterizedTest
  @EnumSource(mode = EnumSource.Mode.EXCLUDE, names = "WRONG_ORDER")
  void withOneThread(Failure failure) throws Exception {
    ONE_THREAD.add(failure, 0, withOneThread(failure, 0));
    ONE_THREAD.add(failure, LAST, withOneThread(failure, LAST));
  }

  @ParameterizedTest
  @EnumSource
  void withAThreadAGpu(Failure failure) throws Exception {
    THREADS.add(failure, 0, withThreads(failure, 0));
    THREADS.add(failure, LAST, withThreads(failure, LAST));
  }

  /** One replica cannot take the last part of a step that the others have taken. */
  @Test
  void replicasThatTookTheStep_areNamed() {
    try (Training training = new Training(group(TIMEOUT))) {
      training.step();
      Replica last = training.group.replica(LAST);
      for (Replica replica : training.group.replicas().subList(0, LAST)) {
        training.first.forward(replica);
      }
      injectDeath(Failure.DIES_AFTER, LAST, 1, 0);
      assertThatThrownBy(() -> training.first.forward(last))
          .hasMessageStartingWith("rank 2 on gpu:2 did not take a step")
          .satisfies(
              e ->
                  assertThat(e.getSuppressed())
                      .extracting(Throwable::getMessage)
                      .isSubsetOf(
                          "states differ: layer 0 has taken 1 steps on rank(s) [2], 2 steps on rank(s) [0, 1]",
                          "states differ: layer 0 has taken 1 steps on rank(s) [0, 2], 2 steps on rank(s) [1]",
                          "states differ: layer 0 has taken 1 steps on rank(s) [1, 2], 2 steps on rank(s) [0]"));
    } finally {
      takeBack();
    }
  }

  /** Found behind the calls, long before the timeout, by CUDA or by NCCL. */
  @Test
  void kernelThatCrashes_isTold() {
    Training training = new Training(group(TIMEOUT));
    try {
      training.step();
      SimNode.fail("kernel", REPLICAS + 1, ILLEGAL_ADDRESS);
      assertThatThrownBy(training::step)
          .isInstanceOf(DeviceException.class)
          .hasMessageMatching("(?s).*(cudaErrorIllegalAddress|unhandled cuda error).*");
    } finally {
      SimNode.fail("kernel", 0, 0);
      for (int gpu = 0; gpu < REPLICAS; gpu++) {
        SimNode.revive(gpu);
      }
      training.close();
    }
  }
}
