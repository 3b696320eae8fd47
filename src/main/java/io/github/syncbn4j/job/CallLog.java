package io.github.syncbn4j.job;

import java.lang.invoke.VarHandle;
import java.util.ArrayList;
import java.util.List;

/**
 * What one rank has called, in order. Written by that rank's thread, which makes no object; read by
 * one other at a time.
 */
public final class CallLog {
  /**
   * Far more than a rank gets ahead of a collective that does not end: a stream takes about a
   * thousand launches.
   */
  static final int KEPT = 1024;

  private final long[] what = new long[KEPT];
  private final long[] size = new long[KEPT];
  private final int[] type = new int[KEPT];
  private volatile long written;
  private long read;

  /** Notes a {@link Call}. */
  public void add(long callWhat, long callSize, int callType) {
    int at = (int) (written % KEPT);
    VarHandle.storeStoreFence(); // who sees a part of this call sees that the one before is there
    what[at] = callWhat;
    size[at] = callSize;
    type[at] = callType;
    written++; // this thread is the only one that writes
  }

  /** What was added last; null for nothing. For a look while nothing is added. */
  public Call last() {
    int at = (int) ((written - 1) % KEPT);
    return written == 0 ? null : new Call(what[at], size[at], type[at]);
  }

  /** The calls since the last time; null in the place of one that was lost. */
  public List<Call> next() {
    long end = written;
    if (read == end) {
      return List.of();
    }
    List<Call> calls = new ArrayList<>();
    for (; read < end; read++) {
      int at = (int) (read % KEPT);
      Call call = new Call(what[at], size[at], type[at]);
      VarHandle.acquireFence();
      // From then on the writer may be in this place again.
      calls.add(written - read < KEPT ? call : null);
    }
    return calls;
  }
}
