package io.github.syncbn4j;

import io.github.syncbn4j.device.cuda.CudaRuntime;
import java.time.Duration;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.extension.ExtendWith;

/** Where a contract is run: every contract is a class that is run on each of these. */
public interface Devices {
  ReplicaGroup.Builder groupOf(int replicas);

  default ReplicaGroup group(int replicas) {
    return groupOf(replicas).timeout(Duration.ofSeconds(30)).build();
  }

  private static ReplicaGroup.Builder gpus(int replicas) {
    return ReplicaGroup.builder().gpus(IntStream.range(0, replicas).toArray());
  }

  /** CPU replicas. */
  interface Cpu extends Devices {
    @Override
    default ReplicaGroup.Builder groupOf(int replicas) {
      return ReplicaGroup.builder().cpus(replicas);
    }
  }

  /** Simulated GPUs: the CUDA sources, under the real bindings of CUDA and NCCL. */
  @Tag("sim")
  @ExtendWith(SeveralTag.class)
  interface Sim extends Devices {
    @Override
    default ReplicaGroup.Builder groupOf(int replicas) {
      SeveralTag.require(replicas);
      return gpus(replicas);
    }
  }

  /** Simulated GPUs, on which a replica that is alone takes two launches a direction too. */
  @Tag("full")
  interface SimInTwoLaunches extends Sim {
    @BeforeAll
    static void separateLaunches() {
      System.setProperty("syncbn.one_launch", "false");
    }

    @AfterAll
    static void oneLaunchAgain() {
      System.clearProperty("syncbn.one_launch");
    }
  }

  /** Real GPUs, one a replica. */
  @Tag("gpu")
  interface Gpu extends Devices {
    @Override
    default ReplicaGroup.Builder groupOf(int replicas) {
      Assumptions.assumeTrue(
          replicas <= CudaRuntime.deviceCount(),
          () -> "needs " + replicas + " GPUs, this machine has " + CudaRuntime.deviceCount());
      return gpus(replicas);
    }
  }
}
