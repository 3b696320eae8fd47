package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.DataOutputStream;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;

/**
 * Ranks that meet through real sockets, each in a thread of its own here. Nothing of them is left.
 */
@Timeout(60)
abstract class RendezvousRanks {
  static final Duration LONG = Duration.ofSeconds(20);
  static final Duration SHORT = Duration.ofMillis(600);
  static final Duration MARGIN = Duration.ofSeconds(1);
  static final byte[] ID = {3, 1, 4, 1, 5};
  static final int HELLO_BYTES = Byte.BYTES + 4 * Integer.BYTES + Long.BYTES;
  static final Call FORWARD = new Call((long) Signature.of(0, 0, false), 64, 0);
  static final Call NEXT = new Call((long) Signature.of(1, 0, false), 64, 0);

  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final List<Rendezvous> open = new ArrayList<>();
  int port;
  private long socketsBefore;

  @BeforeEach
  void findPort() throws IOException {
    try (ServerSocket free = new ServerSocket(0)) {
      port = free.getLocalPort();
    }
  }

  @BeforeEach
  void countSockets() throws IOException {
    socketsBefore = sockets();
  }

  /** Daemon threads of the rendezvous end with it. */
  @AfterEach
  void nothingIsLeft() throws Exception {
    List<Future<Void>> closed = new ArrayList<>();
    for (Rendezvous each : open) {
      closed.add(
          later(
              () -> {
                each.close();
                return null;
              }));
    }
    for (Future<Void> end : closed) {
      get(end);
    }
    threads.shutdownNow();
    long deadline = System.nanoTime() + MARGIN.toNanos();
    while (hasThreads() && System.nanoTime() < deadline) {
      Thread.sleep(10);
    }
    assertThat(hasThreads()).as("threads of the rendezvous are left").isFalse();
    assertThat(sockets()).as("open sockets").isLessThanOrEqualTo(socketsBefore);
  }

  private static long sockets() throws IOException {
    try (Stream<Path> descriptors = Files.list(Path.of("/proc/self/fd"))) {
      return descriptors.filter(RendezvousRanks::isSocket).count();
    }
  }

  private static boolean isSocket(Path descriptor) {
    try {
      return Files.readSymbolicLink(descriptor).toString().startsWith("socket:");
    } catch (IOException e) {
      return false; // closed meanwhile
    }
  }

  private static boolean hasThreads() {
    return Thread.getAllStackTraces().keySet().stream()
        .anyMatch(thread -> thread.getName().startsWith("syncbn-rendezvous"));
  }

  <T> Future<T> later(Callable<T> task) {
    return threads.submit(task);
  }

  static <T> T get(Future<T> future) throws Exception {
    try {
      return future.get(30, TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      throw e.getCause() instanceof Exception cause ? cause : e;
    }
  }

  Future<Rendezvous> come(int rank, int worldSize, Duration timeout) {
    JobEnvironment job = new JobEnvironment(worldSize, rank, rank, "localhost", port);
    return later(
        () -> {
          Rendezvous rendezvous = new Rendezvous(job, rank == 0 ? ID : new byte[0], timeout);
          synchronized (open) {
            open.add(rendezvous);
          }
          return rendezvous;
        });
  }

  List<Rendezvous> allCome(int worldSize, Duration timeout) throws Exception {
    List<Future<Rendezvous>> coming = new ArrayList<>();
    for (int rank = worldSize - 1; rank >= 0; rank--) {
      coming.add(0, come(rank, worldSize, timeout));
    }
    List<Rendezvous> all = new ArrayList<>();
    for (Future<Rendezvous> each : coming) {
      all.add(get(each));
    }
    return all;
  }

  static List<SideChannel> worlds(List<Rendezvous> all) {
    return all.stream().map(Rendezvous::world).toList();
  }

  static void assertRefused(Future<Rendezvous> coming, String... texts) {
    assertThatThrownBy(() -> get(coming))
        .isInstanceOf(JobException.class)
        .hasMessageContainingAll(texts);
  }

  /** What a rank hears within the margin; null if it is nothing. */
  static String heard(SideChannel channel) throws InterruptedException {
    long deadline = System.nanoTime() + MARGIN.toNanos();
    String verdict = channel.verdict();
    while (verdict == null && System.nanoTime() < deadline) {
      Thread.sleep(10);
      verdict = channel.verdict();
    }
    return verdict;
  }

  Socket connected() throws Exception {
    while (true) {
      try {
        return new Socket("localhost", port);
      } catch (IOException e) {
        Thread.sleep(20);
      }
    }
  }

  static void hello(Socket socket, int rank, int worldSize) throws IOException {
    DataOutputStream out = new DataOutputStream(socket.getOutputStream());
    out.writeByte(Wire.HELLO);
    out.writeInt(Wire.MAGIC);
    out.writeInt(Wire.VERSION);
    out.writeInt(worldSize);
    out.writeInt(rank);
    out.writeLong(LONG.toMillis());
    out.flush();
  }
}
