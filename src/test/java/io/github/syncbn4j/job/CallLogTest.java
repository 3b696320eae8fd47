package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the reader of a log gets, also behind a writer that does not wait for it. */
@Timeout(60)
class CallLogTest {
  private static void add(CallLog log, long i) {
    log.add(i, 3 * i, (int) (i % 1000));
  }

  private static Call call(long i) {
    return new Call(i, 3 * i, (int) (i % 1000));
  }

  @Test
  void calls_areReadOnce_inOrder() {
    CallLog log = new CallLog();
    assertThat(log.last()).isNull();
    assertThat(log.next()).isEmpty();
    add(log, 1);
    add(log, 2);
    assertThat(log.last()).isEqualTo(call(2));
    assertThat(log.next()).containsExactly(call(1), call(2));
    assertThat(log.next()).isEmpty();
    add(log, 3);
    assertThat(log.next()).containsExactly(call(3));
  }

  @Test
  void callsThatWereOverwritten_areCounted_butNull() {
    CallLog log = new CallLog();
    int all = CallLog.KEPT + 10;
    for (int i = 0; i < all; i++) {
      add(log, i);
    }
    List<Call> calls = log.next();
    assertThat(calls).hasSize(all);
    assertThat(calls.subList(0, 11)).containsOnlyNulls();
    assertThat(calls.get(11)).isEqualTo(call(11));
    assertThat(calls.get(all - 1)).isEqualTo(call(all - 1));
    add(log, all);
    assertThat(log.next()).containsExactly(call(all));
  }

  /** A step adds to it, and a step makes nothing. */
  @Test
  void adding_allocatesNothing() {
    com.sun.management.ThreadMXBean thread =
        (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    CallLog log = new CallLog();
    add(log, 0);
    long before = thread.getCurrentThreadAllocatedBytes();
    for (int i = 0; i < 100_000; i++) {
      add(log, i);
    }
    assertThat(thread.getCurrentThreadAllocatedBytes() - before).isLessThan(100_000);
  }

  /** None is ever read half written. */
  @Test
  void writerThatOvertakesTheReader() throws Exception {
    CallLog log = new CallLog();
    int all = 1_000_000;
    Thread writer =
        new Thread(
            () -> {
              for (int i = 0; i < all; i++) {
                add(log, i);
              }
            });
    writer.start();
    List<Call> calls = new ArrayList<>();
    while (calls.size() < all) {
      calls.addAll(log.next());
    }
    writer.join();
    for (int i = 0; i < all; i++) {
      if (calls.get(i) != null && !calls.get(i).equals(call(i))) {
        assertThat(calls.get(i)).as("call %d", i).isEqualTo(call(i));
      }
    }
    assertThat(calls.stream().filter(Objects::nonNull)).as("calls that were kept").isNotEmpty();
    assertThat(calls.get(all - 1)).isEqualTo(call(all - 1));
  }
}
