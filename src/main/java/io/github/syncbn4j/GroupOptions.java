package io.github.syncbn4j;

import io.github.syncbn4j.job.JobEnvironment;
import java.time.Duration;
import java.time.format.DateTimeParseException;
import java.util.Map;
import java.util.Objects;
import java.util.function.Consumer;
import java.util.stream.Stream;

/** What a group can be built with: each option's default and limits. */
abstract sealed class GroupOptions permits ReplicaGroup.Builder {
  private static final int MOST_CPU_REPLICAS = 1024;
  private static final int MOST_THREADS = 256;
  private static final Duration LONGEST_TIMEOUT = Duration.ofDays(365);
  private static final String TIMEOUT_PROPERTY = "syncbn.timeout";
  private static final int UNIQUE_ID_BYTES = 128;

  /** A rank of a group whose processes have the id by another way. */
  record Member(byte[] id, int worldSize, int rank, int device) {}

  // Those of the kinds of group that are not asked for are null.
  Integer cpus;
  int[] gpus;
  JobEnvironment job;
  Member member;

  Duration timeout = defaultTimeout();
  int threads = Math.min(Runtime.getRuntime().availableProcessors(), MOST_THREADS);

  /** Null for none. */
  Consumer<String> trace;

  private static Duration defaultTimeout() {
    String text = System.getProperty(TIMEOUT_PROPERTY);
    if (text == null) {
      return ReplicaGroup.DEFAULT_TIMEOUT;
    }
    try {
      return checked(Duration.parse("PT" + text.strip()));
    } catch (DateTimeParseException | IllegalArgumentException e) {
      throw new IllegalArgumentException(
          "-D%s must be a time such as 20s or 10m, not '%s'".formatted(TIMEOUT_PROPERTY, text), e);
    }
  }

  private static Duration checked(Duration timeout) {
    if (timeout.isNegative() || timeout.isZero() || timeout.compareTo(LONGEST_TIMEOUT) > 0) {
      throw new IllegalArgumentException(
          "timeout must be above 0 and at most " + LONGEST_TIMEOUT + ", not " + timeout);
    }
    return timeout;
  }

  /** This many replicas on the CPU: 1 to 1,024. */
  public ReplicaGroup.Builder cpus(int n) {
    if (n < 1 || n > MOST_CPU_REPLICAS) {
      throw new IllegalArgumentException(
          "CPU replicas must be 1 to " + MOST_CPU_REPLICAS + ", not " + n);
    }
    this.cpus = n;
    return builder();
  }

  /** The GPUs with these ordinals, in rank order; all GPUs if none is named. */
  public ReplicaGroup.Builder gpus(int... ordinals) {
    this.gpus = ordinals.clone();
    return builder();
  }

  /** See {@link ReplicaGroup#auto}. */
  public ReplicaGroup.Builder auto() {
    GroupMaker.choose(this);
    return builder();
  }

  /** See {@link ReplicaGroup#fromEnvironment}. */
  public ReplicaGroup.Builder environment(Map<String, String> variables) {
    this.job = JobEnvironment.of(variables);
    return builder();
  }

  /** See {@link ReplicaGroup#rank}. */
  public ReplicaGroup.Builder rank(byte[] uniqueId, int worldSize, int rank, int device) {
    if (worldSize < 1 || rank < 0 || rank >= worldSize) {
      throw new IllegalArgumentException(
          "rank %d of %d: it must be 0 to %d".formatted(rank, worldSize, worldSize - 1));
    }
    if (uniqueId.length != UNIQUE_ID_BYTES) {
      throw new IllegalArgumentException(
          "an id has %d bytes, not %d".formatted(UNIQUE_ID_BYTES, uniqueId.length));
    }
    this.member = new Member(uniqueId.clone(), worldSize, rank, device);
    return builder();
  }

  /**
   * How long replicas wait for each other, and host calls for a device. Default: the system
   * property {@code syncbn.timeout}, as in {@code 20s} or {@code 10m}, or else {@link
   * ReplicaGroup#DEFAULT_TIMEOUT}.
   */
  public ReplicaGroup.Builder timeout(Duration timeout) {
    this.timeout = checked(timeout);
    return builder();
  }

  /**
   * Threads that the CPU kernels of the whole group use, the calling one included: 1 to 256.
   * Default: the processors.
   */
  public ReplicaGroup.Builder threads(int threads) {
    if (threads < 1 || threads > MOST_THREADS) {
      throw new IllegalArgumentException(
          "threads must be 1 to " + MOST_THREADS + ", not " + threads);
    }
    this.threads = threads;
    return builder();
  }

  /**
   * Receives a line for each kernel launch and each collective call, by device. For looking, not
   * for speed.
   */
  public ReplicaGroup.Builder trace(Consumer<String> trace) {
    this.trace = Objects.requireNonNull(trace, "trace");
    return builder();
  }

  /**
   * @throws IllegalStateException unless exactly one kind of group is asked for
   */
  final void requireOneKind() {
    if (Stream.of(cpus, gpus, job, member).filter(Objects::nonNull).count() != 1) {
      throw new IllegalStateException(
          "call exactly one of cpus(n), gpus(...), auto(), environment(...) and rank(...)");
    }
  }

  private ReplicaGroup.Builder builder() {
    return (ReplicaGroup.Builder) this;
  }
}
