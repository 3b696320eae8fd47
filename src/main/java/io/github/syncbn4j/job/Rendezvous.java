package io.github.syncbn4j.job;

import java.io.Closeable;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.locks.LockSupport;

/**
 * A rank's way to the others: through rank 0's process, which serves the rendezvous. Knows the
 * ranks of the world and of groups within it. May be used by several threads.
 */
public final class Rendezvous implements Closeable {
  /** The group of all ranks. */
  static final String WORLD = "";

  private static final Duration RETRY = Duration.ofMillis(50);

  /** For rank 0 to stay until the others have closed their groups too, or the timeout if less. */
  private static final Duration GRACE = Duration.ofSeconds(10);

  /** The same after a failure, for them to hear of it. */
  private static final Duration GRACE_AFTER_FAILURE = Duration.ofSeconds(1);

  /** For rank 0 to say who is missing after the last moment to come. */
  private static final Duration ANSWER_GRACE = Duration.ofMillis(500);

  private final JobEnvironment job;
  private final Duration timeout;
  private final RendezvousServer server;
  private final Wire wire;
  private final byte[] id;

  /** Held by the one thread that waits for an answer. */
  private final Object question = new Object();

  private int users;
  private boolean failed;

  /** Rank 0's process has said that it is about to leave. */
  private boolean leaving;

  /** Why there is no connection any more; null while there is. */
  private String broken;

  /**
   * Meets all other ranks.
   *
   * @param rank0sId what rank 0 hands to all; of other ranks not used
   * @throws JobException if not all ranks come within the timeout, or one is of another job
   */
  public Rendezvous(JobEnvironment job, byte[] rank0sId, Duration timeout) {
    this.job = job;
    this.timeout = timeout;
    long deadline = System.nanoTime() + timeout.toNanos();
    RendezvousServer ours = null;
    Wire connection = null;
    byte[] given = null;
    try {
      ours = job.rank() == 0 ? serve(deadline) : null;
      while (given == null) {
        connection = connect(deadline);
        try {
          greet(connection, deadline);
          if (ours != null) {
            ours.meet(rank0sId);
          }
          given = readGreeting(connection);
        } catch (IOException e) {
          // Where the rendezvous of a group before this one still closes.
          close(connection);
          retry(e, deadline);
        }
      }
      connection.readTimeout(timeout);
    } catch (IOException | RuntimeException e) {
      close(connection);
      close(ours);
      throw e instanceof JobException known ? known : new JobException(unreachable(e), e);
    }
    this.server = ours;
    this.wire = connection;
    this.id = given;
  }

  /** The rendezvous of a group before this one may still have the port; nobody else should. */
  private RendezvousServer serve(long deadline) throws IOException {
    long end = Math.min(deadline, System.nanoTime() + GRACE.toNanos());
    while (true) {
      try {
        return new RendezvousServer(job.port(), job.worldSize(), timeout);
      } catch (IOException e) {
        retry(e, end);
      }
    }
  }

  private Wire connect(long deadline) throws IOException {
    while (true) {
      Socket socket = new Socket();
      try {
        long left = Math.max(1, (deadline - System.nanoTime()) / 1_000_000);
        String host = job.rank() == 0 ? "127.0.0.1" : job.host();
        socket.connect(
            new InetSocketAddress(host, job.port()), (int) Math.min(Integer.MAX_VALUE, left));
        return new Wire(socket);
      } catch (IOException e) {
        close(socket);
        retry(e, deadline);
      }
    }
  }

  /** Waits a little before it is tried again; throws where there is no time left. */
  private static void retry(IOException e, long deadline) throws IOException {
    LockSupport.parkNanos(RETRY.toNanos());
    if (System.nanoTime() - deadline > 0
        || e instanceof UnknownHostException
        || Thread.currentThread().isInterrupted()) {
      throw e;
    }
  }

  private void greet(Wire to, long deadline) throws IOException {
    Duration left = Duration.ofNanos(Math.max(0, deadline - System.nanoTime()));
    to.readTimeout(left.plus(ANSWER_GRACE));
    to.out.writeByte(Wire.HELLO);
    to.out.writeInt(Wire.MAGIC);
    to.out.writeInt(Wire.VERSION);
    to.out.writeInt(job.worldSize());
    to.out.writeInt(job.rank());
    to.out.writeLong(left.toMillis());
    to.out.flush();
  }

  private static byte[] readGreeting(Wire from) throws IOException {
    String refusal = from.in.readUTF();
    byte[] bytes = from.readBytes();
    if (!refusal.isEmpty()) {
      throw new JobException(refusal, null);
    }
    return bytes;
  }

  private String unreachable(Exception e) {
    return job.rank() == 0
        ? "rank 0 cannot serve the others at port %d: %s; SYNCBN_PORT names another"
            .formatted(job.port(), e.getMessage())
        : "rank %d cannot meet the others at %s:%d, where rank 0 has to be: %s"
            .formatted(
                job.rank(),
                job.host(),
                job.port(),
                e instanceof EOFException
                    ? "what listens there ends the connection"
                    : e.getMessage());
  }

  private static void close(Closeable closeable) {
    try {
      if (closeable != null) {
        closeable.close();
      }
    } catch (IOException e) {
      // There was nothing more to say.
    }
  }

  /** What rank 0 handed to all. */
  public byte[] id() {
    return id.clone();
  }

  /** The side channel of all ranks. */
  public SideChannel world() {
    return channel(WORLD, job.rank());
  }

  /**
   * The side channel of a group of some ranks, who all give it one name.
   *
   * @param rank of this process in it
   */
  public SideChannel group(String name, int size, int rank) {
    send(
        Wire.ENTER,
        name,
        w -> {
          w.out.writeInt(size);
          w.out.writeInt(rank);
        });
    return channel(name, rank);
  }

  private synchronized SideChannel channel(String group, int rank) {
    users++;
    return new Channel(group, rank);
  }

  private interface Body {
    void write(Wire wire) throws IOException;
  }

  private synchronized void send(int message, String group, Body body) {
    if (broken != null) {
      return;
    }
    try {
      wire.out.writeByte(message);
      wire.out.writeUTF(group);
      body.write(wire);
      wire.out.flush();
    } catch (IOException e) {
      breakOff(e);
    }
  }

  private synchronized void breakOff(IOException e) {
    broken = e instanceof SocketTimeoutException ? Roll.silent(List.of(0), timeout) : Roll.lost(0);
    close(wire);
  }

  private synchronized boolean isBroken() {
    return broken != null;
  }

  /** Ends the connection; rank 0 first lets the others go. */
  @Override
  public void close() {
    close(wire);
    if (server != null) {
      Duration grace;
      synchronized (this) {
        grace = failed ? GRACE_AFTER_FAILURE : GRACE;
      }
      try {
        server.closeAfterOthers(grace.compareTo(timeout) < 0 ? grace : timeout);
      } catch (IOException e) {
        // There was nothing more to say.
      }
    }
  }

  private final class Channel implements SideChannel {
    private final String group;
    private final int rank;

    /** The last call that no verdict has taken into account yet. */
    private Call waits;

    private String verdict;
    private boolean closed;

    Channel(String group, int rank) {
      this.group = group;
      this.rank = rank;
    }

    @Override
    public void report(int reporter, List<Call> calls) {
      synchronized (Rendezvous.this) {
        if (!calls.isEmpty() && !closed) {
          waits = calls.get(calls.size() - 1);
          send(Wire.REPORT, group, w -> w.writeCalls(calls));
        }
      }
    }

    @Override
    public String verdict() {
      synchronized (question) {
        Call asked;
        synchronized (Rendezvous.this) {
          if (closed || verdict != null) {
            return verdict;
          }
          asked = waits;
          send(Wire.ASK, group, w -> {});
        }
        if (!isBroken()) {
          try {
            conclude(wire.in.readUTF(), wire.in.readBoolean(), asked);
          } catch (IOException e) {
            breakOff(e);
          }
        }
        return concludeIfBroken();
      }
    }

    private void conclude(String text, boolean rank0Leaves, Call asked) {
      synchronized (Rendezvous.this) {
        leaving = rank0Leaves;
        if (!text.isEmpty()) {
          verdict = text;
          failed = true;
        } else if (waits == asked) {
          waits = null;
        }
      }
    }

    /**
     * Where rank 0 has taken its leave, others may go on, but not with it; smaller groups have
     * nobody any more to compare their calls.
     */
    private String concludeIfBroken() {
      synchronized (Rendezvous.this) {
        if (broken != null && verdict == null) {
          if (!leaving) {
            verdict = broken;
          } else if (waits != null && group.equals(WORLD)) {
            verdict =
                "rank(s) [0] closed the group and will not come where rank(s) [%d] wait: %s"
                    .formatted(rank, waits);
          }
        }
        return verdict;
      }
    }

    @Override
    public void fail(String reason) {
      synchronized (Rendezvous.this) {
        failed = true;
        send(Wire.FAIL, group, w -> w.writeText(String.valueOf(reason)));
      }
    }

    @Override
    public void close() {
      boolean last;
      synchronized (Rendezvous.this) {
        if (closed) {
          return;
        }
        closed = true;
        send(Wire.LEAVE, group, w -> {});
        users--;
        last = users == 0;
      }
      if (last) {
        Rendezvous.this.close();
      }
    }
  }
}
