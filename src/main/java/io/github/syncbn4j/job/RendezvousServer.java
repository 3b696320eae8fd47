package io.github.syncbn4j.job;

import java.io.Closeable;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.IntStream;

/**
 * The rendezvous in rank 0's process: brings all ranks together, and keeps a roll for each of their
 * groups. A daemon thread a connection.
 */
final class RendezvousServer implements Closeable {
  private static final Duration ACCEPT_RETRY = Duration.ofMillis(50);

  private final ServerSocket socket;
  private final int worldSize;
  private final Duration timeout;
  private final Map<String, Roll> rolls = new HashMap<>();

  /** Open connections, those of strangers too. */
  private final Set<Wire> wires = new HashSet<>();

  /** The connected ranks. */
  private final Map<Integer, Wire> members = new TreeMap<>();

  /** When the first of the ranks gives up waiting for the others. */
  private long deadline;

  /** All are there, or do not come: nobody is let in any more. */
  private boolean met;

  private boolean leaving;
  private boolean closed;

  /**
   * @param port on all of this node's addresses
   * @param timeout for the ranks to come, and of the rolls
   */
  RendezvousServer(int port, int worldSize, Duration timeout) throws IOException {
    this.socket = new ServerSocket(port, worldSize);
    this.worldSize = worldSize;
    this.timeout = timeout;
    this.deadline = System.nanoTime() + timeout.toNanos();
    enter(Rendezvous.WORLD, worldSize);
    start("accept", this::accept);
  }

  private static void start(String what, Runnable body) {
    Thread thread = new Thread(body, "syncbn-rendezvous-" + what);
    thread.setDaemon(true);
    thread.start();
  }

  private void accept() {
    while (!socket.isClosed()) {
      try {
        Socket connection = socket.accept();
        start("rank", () -> serve(connection));
      } catch (IOException e) {
        // Closed; or there are no file descriptors left, which may change.
        LockSupport.parkNanos(ACCEPT_RETRY.toNanos());
      }
    }
  }

  private void serve(Socket connection) {
    Map<String, Integer> ranksByGroup = new HashMap<>();
    try (Wire wire = new Wire(connection)) {
      try {
        add(wire);
        wire.readTimeout(timeout);
        ranksByGroup.put(Rendezvous.WORLD, greet(wire));
        wire.readTimeout(Duration.ZERO);
        while (true) {
          answer(wire, ranksByGroup);
        }
      } finally {
        remove(wire, ranksByGroup);
      }
    } catch (IOException e) {
      // Who it was, and that it has gone, is on the rolls.
    }
  }

  private synchronized void add(Wire wire) throws IOException {
    if (closed) {
      throw new IOException("too late");
    }
    wires.add(wire);
  }

  /** A connection has ended. Until all ranks are there, the rank may come again. */
  private synchronized void remove(Wire wire, Map<String, Integer> ranksByGroup) {
    wires.remove(wire);
    members.values().remove(wire);
    if (met) {
      ranksByGroup.forEach((group, rank) -> rolls.get(group).conclude(Roll.lost(rank)));
    }
    notifyAll();
  }

  /** Lets a rank in. It is answered when all are there, or at once if it does not belong here. */
  private int greet(Wire wire) throws IOException {
    if (wire.in.readByte() != Wire.HELLO || wire.in.readInt() != Wire.MAGIC) {
      throw new IOException("not one of a job's ranks");
    }
    int version = wire.in.readInt();
    int itsWorldSize = wire.in.readInt();
    int rank = wire.in.readInt();
    long patience = wire.in.readLong();
    String refusal = join(wire, version, itsWorldSize, rank, patience);
    if (refusal != null) {
      say(wire, refusal, new byte[0]);
      throw new IOException(refusal);
    }
    return rank;
  }

  /**
   * @throws IOException if the ranks have come together already: this is of a later group, whose
   *     rendezvous is yet to open
   */
  private synchronized String join(
      Wire wire, int version, int itsWorldSize, int rank, long patience) throws IOException {
    if (met) {
      throw new IOException("rank " + rank + " came too late");
    }
    if (version != Wire.VERSION) {
      return "rank %d speaks version %d of the rendezvous, rank 0 version %d"
          .formatted(rank, version, Wire.VERSION);
    }
    if (itsWorldSize != worldSize || rank < 0 || rank >= worldSize) {
      return "rank %d of %d came to a job of %d".formatted(rank, itsWorldSize, worldSize);
    }
    if (members.putIfAbsent(rank, wire) != null) {
      return "there are two processes of rank " + rank;
    }
    long end = System.nanoTime() + Duration.ofMillis(patience).toNanos();
    if (end - deadline < 0) {
      deadline = end;
    }
    notifyAll();
    return null;
  }

  private static void say(Wire wire, String refusal, byte[] handedToAll) throws IOException {
    wire.writeText(refusal);
    wire.writeBytes(handedToAll);
    wire.out.flush();
  }

  /** Waits for all ranks and greets them, or tells those that are there who is missing. */
  synchronized void meet(byte[] handedToAll) {
    while (members.size() < worldSize && await(deadline)) {
      // One has come, or gone.
    }
    met = true;
    List<Integer> missing =
        IntStream.range(0, worldSize).filter(rank -> !members.containsKey(rank)).boxed().toList();
    String refusal =
        missing.isEmpty()
            ? ""
            : "rank(s) %s of %d did not come within %.3f s"
                .formatted(missing, worldSize, timeout.toMillis() / 1e3);
    for (Wire wire : members.values()) {
      try {
        say(wire, refusal, missing.isEmpty() ? handedToAll : new byte[0]);
      } catch (IOException e) {
        // The thread that reads from it notices.
      }
    }
  }

  /** Waits for a change; false if it is too late for one. */
  private boolean await(long end) {
    long left = end - System.nanoTime();
    if (left <= 0) {
      return false;
    }
    try {
      wait(left / 1_000_000 + 1);
      return true;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  private void answer(Wire wire, Map<String, Integer> ranksByGroup) throws IOException {
    int message = wire.in.readByte();
    String group = wire.in.readUTF();
    if (message == Wire.ENTER) {
      int size = wire.in.readInt();
      int rank = wire.in.readInt();
      if (size < 1 || size > worldSize || rank < 0 || rank >= enter(group, size).size()) {
        throw new IOException("rank %d of %d: not this protocol".formatted(rank, size));
      }
      ranksByGroup.put(group, rank);
      return;
    }
    Integer rank = ranksByGroup.get(group);
    if (rank == null) {
      throw new IOException("a message for a group that it is not in");
    }
    Roll roll = roll(group);
    switch (message) {
      case Wire.REPORT -> roll.report(rank, wire.readCalls());
      case Wire.ASK -> {
        roll.report(rank, List.of());
        String verdict = roll.verdict();
        wire.writeText(verdict == null ? "" : verdict);
        wire.out.writeBoolean(isLeaving());
        wire.out.flush();
      }
      case Wire.FAIL -> roll.conclude("rank %d failed: %s".formatted(rank, wire.in.readUTF()));
      case Wire.LEAVE -> {
        roll.leave(rank);
        ranksByGroup.remove(group);
      }
      default -> throw new IOException("message " + message + ": not this protocol");
    }
  }

  /** Rank 0 has gone, and its last calls are on the rolls. */
  private synchronized boolean isLeaving() {
    return leaving && !members.containsKey(0);
  }

  private synchronized Roll enter(String group, int size) {
    return rolls.computeIfAbsent(group, name -> new Roll(size, timeout));
  }

  private synchronized Roll roll(String group) {
    return rolls.get(group);
  }

  /** Waits until all ranks have gone, that they are not taken by surprise, and closes. */
  synchronized void closeAfterOthers(Duration atMost) throws IOException {
    leaving = true;
    long end = System.nanoTime() + atMost.toNanos();
    while (!members.isEmpty() && await(end)) {
      // One has gone.
    }
    close();
  }

  @Override
  public synchronized void close() throws IOException {
    closed = true;
    socket.close();
    for (Wire wire : wires) {
      wire.close();
    }
  }
}
