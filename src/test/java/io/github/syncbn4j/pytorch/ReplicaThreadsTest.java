package io.github.syncbn4j.pytorch;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.ReplicaGroup;
import java.io.IOException;
import java.util.Set;
import java.util.concurrent.ConcurrentSkipListSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(20)
class ReplicaThreadsTest {
  @Test
  void everyReplica_hasAThread() {
    Set<String> names = new ConcurrentSkipListSet<>();
    try (ReplicaGroup group = ReplicaGroup.cpus(3)) {
      ReplicaThreads.run(group, replica -> names.add(Thread.currentThread().getName()));
    }
    assertThat(names).containsExactly("replica-0", "replica-1", "replica-2");
  }

  /** The others wait in a collective that it never comes to. */
  private static void failInOne(ReplicaGroup group, Runnable failing) {
    ReplicaThreads.run(
        group,
        replica -> {
          if (replica.rank() == 1) {
            failing.run();
          }
          replica.allReduce(replica.allocate(DType.FLOAT32, 5));
        });
  }

  @Test
  void exceptionOfOne_isThrown_andEndsTheOthers() {
    ReplicaGroup group = ReplicaGroup.cpus(3);
    assertThatThrownBy(
            () ->
                failInOne(
                    group,
                    () -> {
                      throw new UnsupportedOperationException("no");
                    }))
        .isInstanceOf(UnsupportedOperationException.class)
        .hasMessage("no");
    assertThatThrownBy(group::check).hasMessage("the group is closed");
  }

  /** Which other languages of the JVM throw without declaring it. */
  @Test
  void checkedExceptionOfOne_isTheCause_andEndsTheOthers() {
    ReplicaGroup group = ReplicaGroup.cpus(3);
    IOException gone = new IOException("gone");
    assertThatThrownBy(
            () -> failInOne(group, () -> ReplicaThreadsTest.<RuntimeException>sneak(gone)))
        .isInstanceOf(IllegalStateException.class)
        .hasCause(gone);
    assertThatThrownBy(group::check).hasMessage("the group is closed");
  }

  @SuppressWarnings("unchecked")
  private static <E extends Throwable> void sneak(Throwable throwable) throws E {
    throw (E) throwable;
  }

  @Test
  void errorOfOne_isThrown_andEndsTheOthers() {
    ReplicaGroup group = ReplicaGroup.cpus(3);
    assertThatThrownBy(
            () ->
                failInOne(
                    group,
                    () -> {
                      throw new StackOverflowError("deep");
                    }))
        .isInstanceOf(StackOverflowError.class);
    assertThatThrownBy(group::check).hasMessage("the group is closed");
  }
}
