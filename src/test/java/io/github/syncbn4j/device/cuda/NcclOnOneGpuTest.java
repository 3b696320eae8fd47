package io.github.syncbn4j.device.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.device.Rows;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.bytedeco.javacpp.DoublePointer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;

/**
 * The exchange of rows through NCCL, as far as one GPU can show it. {@code ReplicaGroup} makes no
 * communicator for one GPU and refuses a GPU that is listed twice, so these start one layer below.
 */
@Tag("gpu")
@Timeout(60)
class NcclOnOneGpuTest {
  /**
   * Around the sizes at which NCCL changes its protocol, and far below what is worth waiting for.
   */
  private static final int[] LENGTHS = {1, 7, 129, 4096, 65537};

  private static final int REPETITIONS = 20;

  @Test
  @Tag("sim")
  @Tag("one-rank")
  void oneRank_keepsItsRow() {
    exchangesLeaveEveryRowEverywhere(1, false);
  }

  /** NCCL 2.30 is the first that allows this, and only where the variable is set. */
  @Test
  @Tag("two-ranks")
  @EnabledIfEnvironmentVariable(named = "NCCL_MULTI_RANK_GPU_ENABLE", matches = "1")
  void twoRanksByOneThread_holdEveryRow() {
    exchangesLeaveEveryRowEverywhere(2, false);
  }

  @Test
  @Tag("two-ranks")
  @EnabledIfEnvironmentVariable(named = "NCCL_MULTI_RANK_GPU_ENABLE", matches = "1")
  void twoRanksByTwoThreads_holdEveryRow() {
    exchangesLeaveEveryRowEverywhere(2, true);
  }

  private static void exchangesLeaveEveryRowEverywhere(int ranks, boolean threadEach) {
    CudaRuntime.ensureAvailable();
    List<CudaDevice> devices = new ArrayList<>();
    for (int rank = 0; rank < ranks; rank++) {
      devices.add(new CudaDevice(0));
    }
    NcclClique clique = NcclClique.connect(devices, Duration.ofSeconds(30));
    Random random = new Random(5);
    for (int length : LENGTHS) {
      long bytes = (long) ranks * length * Double.BYTES;
      Rows[] rows = new Rows[ranks];
      for (int rank = 0; rank < ranks; rank++) {
        rows[rank] = new Rows(rank, ranks, devices.get(rank).allocate(bytes)).length(length);
      }
      for (int repetition = 0; repetition < REPETITIONS; repetition++) {
        double[] all = values(random, ranks * length);
        for (Rows mine : rows) {
          upload(devices.get(mine.rank()), mine, ownRowOnly(all, mine));
        }
        exchange(clique, rows, threadEach);
        for (Rows mine : rows) {
          assertThat(download(devices.get(mine.rank()), mine))
              .as("rank %d, %d values a row, repetition %d", mine.rank(), length, repetition)
              .isEqualTo(all);
        }
      }
      for (Rows mine : rows) {
        devices.get(mine.rank()).free(mine.buffer().address());
      }
    }
    clique.close();
    devices.forEach(CudaDevice::close);
  }

  private static void exchange(NcclClique clique, Rows[] rows, boolean threadEach) {
    if (!threadEach) {
      clique.allReduce(rows);
      return;
    }
    CompletableFuture<?>[] calls = new CompletableFuture<?>[rows.length];
    for (Rows mine : rows) {
      CompletableFuture<Void> call = new CompletableFuture<>();
      calls[mine.rank()] = call;
      new Thread(
              () -> {
                try {
                  clique.allReduce(new Rows[] {mine});
                  call.complete(null);
                } catch (RuntimeException e) {
                  call.completeExceptionally(e);
                }
              })
          .start();
    }
    CompletableFuture.allOf(calls).join();
  }

  /** Of all magnitudes, so that a sum with anything but zero would show. */
  private static double[] values(Random random, int count) {
    double[] values = new double[count];
    for (int i = 0; i < count; i++) {
      values[i] = Math.scalb(random.nextGaussian(), random.nextInt(200) - 100);
    }
    return values;
  }

  private static double[] ownRowOnly(double[] all, Rows mine) {
    double[] values = new double[all.length];
    int length = (int) mine.length();
    System.arraycopy(all, mine.rank() * length, values, mine.rank() * length, length);
    return values;
  }

  private static void upload(CudaDevice device, Rows rows, double[] values) {
    try (DoublePointer host = new DoublePointer(values)) {
      device.copyFromHost(rows.buffer().address(), host, (long) values.length * Double.BYTES);
    }
  }

  private static double[] download(CudaDevice device, Rows rows) {
    double[] values = new double[(int) rows.elements()];
    try (DoublePointer host = new DoublePointer(values.length)) {
      device.copyToHost(host, rows.buffer().address(), (long) values.length * Double.BYTES);
      host.get(values);
    }
    return values;
  }
}
