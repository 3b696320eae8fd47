package io.github.syncbn4j.job;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * Compares what the ranks call: whether all make the same calls in the same order, and none is
 * waited for, or not heard of, longer than the timeout. Where all ranks are in one process, also
 * their side channel.
 */
public final class Roll implements SideChannel {
  private record Made(Call call, long nanos) {}

  private static final class Rank {
    /** Calls that some other rank has not made yet. */
    final Deque<Made> ahead = new ArrayDeque<>();

    Call last;

    /** When it last said anything; no matter before it has. */
    long heard;

    boolean known;

    /** Makes no more calls. */
    boolean gone;
  }

  private final List<Rank> ranks;
  private final Duration timeout;
  private String verdict;

  /** When all ranks last came to a call. */
  private long together = System.nanoTime();

  public Roll(int size, Duration timeout) {
    this.timeout = timeout;
    this.ranks = IntStream.range(0, size).mapToObj(rank -> new Rank()).toList();
  }

  int size() {
    return ranks.size();
  }

  @Override
  public synchronized void report(int rank, List<Call> calls) {
    long now = System.nanoTime();
    ranks.get(rank).known = true;
    ranks.get(rank).heard = now;
    calls.forEach(call -> ranks.get(rank).ahead.add(new Made(call, now)));
    while (ranks.stream().noneMatch(r -> r.ahead.isEmpty())) {
      ranks.forEach(each -> each.last = each.ahead.remove().call());
      together = now;
      compareLast();
    }
  }

  /** A call that is not known is taken for the right one. */
  private void compareLast() {
    Map<Call, List<Integer>> byCall = new LinkedHashMap<>();
    for (int rank = 0; rank < ranks.size(); rank++) {
      if (ranks.get(rank).last != null) {
        byCall.computeIfAbsent(ranks.get(rank).last, call -> new ArrayList<>()).add(rank);
      }
    }
    if (byCall.size() > 1) {
      conclude(
          "the ranks called different things: "
              + byCall.entrySet().stream()
                  .map(e -> "rank(s) %s %s".formatted(e.getValue(), e.getKey()))
                  .collect(Collectors.joining("; ")));
    }
  }

  /** A rank makes no more calls: nobody may wait for it from now on. */
  synchronized void leave(int rank) {
    ranks.get(rank).gone = true;
  }

  /** Nobody can go on. The first reason counts. */
  synchronized void conclude(String reason) {
    if (verdict == null) {
      verdict = reason;
    }
  }

  @Override
  public synchronized String verdict() {
    if (verdict == null) {
      verdict = absence();
    }
    if (verdict == null) {
      verdict = silence();
    }
    return verdict;
  }

  private String absence() {
    List<Integer> waiting = ranks(rank -> !rank.ahead.isEmpty());
    List<Integer> absent = ranks(rank -> rank.ahead.isEmpty());
    if (waiting.isEmpty() || absent.isEmpty()) {
      return null;
    }
    long now = System.nanoTime();
    Made longest = null;
    for (int rank : waiting) {
      Made first = ranks.get(rank).ahead.element();
      if (longest == null || now - first.nanos() > now - longest.nanos()) {
        longest = first;
      }
    }
    String where = "where rank(s) %s wait: %s".formatted(waiting, named(longest.call()));
    List<Integer> gone = ranks(rank -> rank.ahead.isEmpty() && rank.gone);
    if (!gone.isEmpty()) {
      return "rank(s) %s closed the group and will not come %s".formatted(gone, where);
    }
    // Who is many calls ahead waits in one of them at a time.
    if (Math.min(now - longest.nanos(), now - together) <= timeout.toNanos()) {
      return null;
    }
    Call last = ranks.get(absent.get(0)).last;
    return "rank(s) %s did not come within %.3f s %s (%s)"
        .formatted(
            absent,
            timeout.toMillis() / 1e3,
            where,
            last == null ? "no call of theirs is known" : "their last call: " + last);
  }

  private static String named(Call call) {
    return call == null ? "a call that is not known" : call.toString();
  }

  private String silence() {
    long now = System.nanoTime();
    boolean someWait = ranks.stream().anyMatch(rank -> !rank.ahead.isEmpty());
    List<Integer> silent =
        ranks(
            rank ->
                rank.known
                    && !rank.gone
                    && !(someWait && rank.ahead.isEmpty()) // it is absent: that says where
                    && now - rank.heard > timeout.toNanos());
    return silent.isEmpty() ? null : silent(silent, timeout);
  }

  /** What is said of ranks that are neither lost nor there. */
  static String silent(List<Integer> ranks, Duration timeout) {
    return "rank(s) %s have not been heard of for %.3f s: stopped, or cannot be reached"
        .formatted(ranks, timeout.toMillis() / 1e3);
  }

  /** What is said of a rank whose connection has ended. */
  static String lost(int rank) {
    return "rank %d was lost: its process has ended or cannot be reached".formatted(rank);
  }

  private List<Integer> ranks(Predicate<Rank> condition) {
    return IntStream.range(0, ranks.size())
        .filter(rank -> condition.test(ranks.get(rank)))
        .boxed()
        .toList();
  }

  /** All ranks are in this process and know. */
  @Override
  public void fail(String reason) {}

  @Override
  public void close() {}
}
