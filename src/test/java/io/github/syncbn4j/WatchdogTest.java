package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.job.Call;
import io.github.syncbn4j.job.Roll;
import io.github.syncbn4j.job.SideChannel;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;

/** Which of several reasons is told. */
class WatchdogTest {
  private static final Duration TIMEOUT = Duration.ofMillis(200);
  private static final Duration DELAY = Duration.ofMillis(100);

  /** As on a machine that is busy: it takes the watchdog long to come to what a rank calls. */
  private static final class LateChannel implements SideChannel {
    private final SideChannel roll = new Roll(2, TIMEOUT);

    @Override
    public void report(int rank, List<Call> calls) {
      if (!calls.isEmpty()) {
        LockSupport.parkNanos(DELAY.toNanos());
      }
      roll.report(rank, calls);
    }

    @Override
    public String verdict() {
      return roll.verdict();
    }

    @Override
    public void fail(String reason) {
      roll.fail(reason);
    }

    @Override
    public void close() {
      roll.close();
    }
  }

  private final CompletableFuture<CollectiveException> failure = new CompletableFuture<>();
  private final Watchdog watchdog =
      new Watchdog(0, 2, new LateChannel(), TIMEOUT, failure::complete);

  private String verdict() throws Exception {
    watchdog.start();
    String verdict = failure.get(10, TimeUnit.SECONDS).getMessage();
    watchdog.close();
    return verdict;
  }

  @Test
  void rankThatDoesNotCome_isNamed_howeverLateTheWatchdogIs() throws Exception {
    watchdog.enter(0);
    watchdog.announce(0, Call.collective(-1), 5, 0);
    assertThat(verdict()).startsWith("rank(s) [1] did not come within 0.200 s");
  }

  @Test
  void callThatDoesNotEnd_withoutAnotherReason_isNamed() throws Exception {
    watchdog.enter(1);
    assertThat(verdict())
        .isEqualTo("rank 1 has been in a call for more than 0.200 s: its device or NCCL hangs");
  }
}
