package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.OnThreads;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.Function;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.global.torch;

/** A thread a replica, which libtorch does not divide further. */
final class Threads {
  private Threads() {}

  /** Runs {@code action} for each replica at once. Throws what the first failing rank threw. */
  @SuppressWarnings("try")
  static void onEach(ReplicaGroup group, Consumer<Replica> action) {
    fromEach(
        group,
        replica -> {
          try (PointerScope scope = new PointerScope()) {
            action.accept(replica);
          }
          return null;
        });
  }

  /** As {@link #onEach}, with a result of each, in rank order. */
  static <T> List<T> fromEach(ReplicaGroup group, Function<Replica, T> action) {
    try {
      return OnThreads.call(
          group,
          replica -> {
            torch.set_num_threads(1);
            return action.apply(replica);
          });
    } catch (RuntimeException e) {
      throw e;
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }
}
