package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.DataOutputStream;
import java.io.IOException;
import java.io.OutputStream;
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
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Ranks that meet through real sockets, each in a thread of its own here. */
@Timeout(60)
class RendezvousTest {
  private static final Duration LONG = Duration.ofSeconds(20);
  private static final Duration SHORT = Duration.ofMillis(600);
  private static final Duration MARGIN = Duration.ofSeconds(1);
  private static final byte[] ID = {3, 1, 4, 1, 5};
  private static final int HELLO_BYTES = Byte.BYTES + 4 * Integer.BYTES + Long.BYTES;
  private static final Call FORWARD = new Call((long) Signature.of(0, 0, false), 64, 0);
  private static final Call NEXT = new Call((long) Signature.of(1, 0, false), 64, 0);

  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final List<Rendezvous> open = new ArrayList<>();
  private int port;
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
      return descriptors.filter(RendezvousTest::isSocket).count();
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

  private <T> Future<T> later(Callable<T> task) {
    return threads.submit(task);
  }

  private static <T> T get(Future<T> future) throws Exception {
    try {
      return future.get(30, TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      throw e.getCause() instanceof Exception cause ? cause : e;
    }
  }

  private Future<Rendezvous> come(int rank, int worldSize, Duration timeout) {
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

  private List<Rendezvous> allCome(int worldSize, Duration timeout) throws Exception {
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

  private static List<SideChannel> worlds(List<Rendezvous> all) {
    return all.stream().map(Rendezvous::world).toList();
  }

  private static void assertRefused(Future<Rendezvous> coming, String... texts) {
    assertThatThrownBy(() -> get(coming))
        .isInstanceOf(JobException.class)
        .hasMessageContainingAll(texts);
  }

  /** What a rank hears within the margin; null if it is nothing. */
  private static String heard(SideChannel channel) throws InterruptedException {
    long deadline = System.nanoTime() + MARGIN.toNanos();
    String verdict = channel.verdict();
    while (verdict == null && System.nanoTime() < deadline) {
      Thread.sleep(10);
      verdict = channel.verdict();
    }
    return verdict;
  }

  @Test
  void allCome_andGetWhatRankZeroHandsOut() throws Exception {
    for (Rendezvous each : allCome(4, LONG)) {
      assertThat(each.id()).isEqualTo(ID);
    }
  }

  @Test
  void missingRanks_areNamedToThoseThatCame_inTime() throws Exception {
    long start = System.nanoTime();
    List<Future<Rendezvous>> came =
        List.of(come(0, 5, SHORT), come(2, 5, SHORT), come(4, 5, SHORT));
    for (Future<Rendezvous> each : came) {
      assertRefused(each, "rank(s) [1, 3] of 5 did not come within 0.600 s");
    }
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(SHORT.plus(MARGIN));
  }

  /** Who came first does not wait longer for it. */
  @Test
  void missingRank_isNamed_whereRankZeroWasLate() throws Exception {
    long start = System.nanoTime();
    Future<Rendezvous> first = come(1, 3, SHORT);
    Thread.sleep(SHORT.toMillis() / 2);
    Future<Rendezvous> zero = come(0, 3, LONG);
    assertRefused(first, "rank(s) [2] of 3 did not come");
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(SHORT.plus(MARGIN));
    assertRefused(zero, "rank(s) [2] of 3 did not come");
  }

  @Test
  void rankZero_mayBeLate() throws Exception {
    Future<Rendezvous> first = come(1, 2, LONG);
    Thread.sleep(300);
    assertThat(get(come(0, 2, LONG)).id()).isEqualTo(ID);
    assertThat(get(first).id()).isEqualTo(ID);
  }

  @Test
  void rankZeroThatNeverComes_isNamedWithItsPlace_inTime() {
    long start = System.nanoTime();
    assertRefused(
        come(1, 2, SHORT),
        "rank 1 cannot meet the others at localhost:" + port,
        "rank 0 has to be");
    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(SHORT.plus(MARGIN));
  }

  @Test
  void secondProcessOfARank_isRefused_andTheFirstGoesOn() throws Exception {
    Future<Rendezvous> zero = come(0, 3, LONG);
    Future<Rendezvous> first = come(1, 3, LONG);
    Thread.sleep(300);
    assertRefused(come(1, 3, LONG), "there are two processes of rank 1");
    get(come(2, 3, LONG));
    get(first);
    get(zero);
  }

  @Test
  void rankOfAnotherWorld_isRefused_andTheOthersGoOn() throws Exception {
    Future<Rendezvous> zero = come(0, 2, LONG);
    assertRefused(come(3, 4, LONG), "rank 3 of 4 came to a job of 2");
    get(come(1, 2, LONG));
    get(zero);
  }

  /** As where it was started anew. */
  @Test
  void rankThatDiesWhileOthersAreAwaited_mayComeAgain() throws Exception {
    Future<Rendezvous> zero = come(0, 3, LONG);
    try (Socket dying = connected()) {
      hello(dying, 1, 3);
    }
    Thread.sleep(300); // until its end is noticed
    Future<Rendezvous> again = come(1, 3, LONG);
    get(come(2, 3, LONG));
    get(again);
    get(zero);
  }

  private Socket connected() throws Exception {
    while (true) {
      try {
        return new Socket("localhost", port);
      } catch (IOException e) {
        Thread.sleep(20);
      }
    }
  }

  private static void hello(Socket socket, int rank, int worldSize) throws IOException {
    DataOutputStream out = new DataOutputStream(socket.getOutputStream());
    out.writeByte(Wire.HELLO);
    out.writeInt(Wire.MAGIC);
    out.writeInt(Wire.VERSION);
    out.writeInt(worldSize);
    out.writeInt(rank);
    out.writeLong(LONG.toMillis());
    out.flush();
  }

  @Test
  void strangers_disturbNobody() throws Exception {
    Future<Rendezvous> zero = come(0, 2, LONG);
    try (Socket silent = connected();
        Socket nonsense = connected();
        Socket almost = connected()) {
      nonsense.getOutputStream().write("GET / HTTP/1.1\r\n\r\n".getBytes());
      DataOutputStream out = new DataOutputStream(almost.getOutputStream());
      out.writeByte(Wire.HELLO);
      out.writeInt(Wire.MAGIC);
      out.flush();
      Rendezvous one = get(come(1, 2, LONG));
      assertThat(nonsense.getInputStream().read()).as("it is sent away").isNegative();
      List<SideChannel> worlds = worlds(List.of(get(zero), one));
      worlds.forEach(world -> world.report(0, List.of(FORWARD)));
      assertThat(worlds.get(0).verdict()).isNull();
      // Rank 0 waits for ranks, and for nobody else.
      long start = System.nanoTime();
      worlds.get(1).close();
      worlds.get(0).close();
      assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(MARGIN);
      assertThat(silent.getInputStream().read()).isNegative();
    }
  }

  /** A length that would take all memory, or a message that is none, costs the rank its place. */
  @Test
  void rankThatSpeaksNonsense_isLost() throws Exception {
    for (byte[] nonsense : new byte[][] {{99, 0, 0}, {Wire.REPORT, 0, 0, 127, -1, -1, -1}}) {
      findPort();
      Future<Rendezvous> coming = come(0, 2, LONG);
      try (Socket socket = connected()) {
        hello(socket, 1, 2);
        SideChannel zero = get(coming).world();
        OutputStream out = socket.getOutputStream();
        out.write(nonsense);
        out.flush();
        assertThat(heard(zero)).startsWith("rank 1 was lost");
        zero.close();
      }
    }
  }

  @Test
  void anotherProgramOnThePort_isTold_inTime() throws Exception {
    try (ServerSocket other = new ServerSocket(port)) {
      long start = System.nanoTime();
      Future<Rendezvous> zero = come(0, 2, SHORT);
      Future<Rendezvous> one = come(1, 2, SHORT); // is accepted, and hears nothing
      assertRefused(zero, "rank 0 cannot serve the others at port " + port, "SYNCBN_PORT");
      assertRefused(one, "rank 1 cannot meet the others at localhost:" + port);
      assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(SHORT.plus(MARGIN));
    }
  }

  @Test
  void anotherProgramThatTalks_isTold() throws Exception {
    try (ServerSocket other = new ServerSocket(port)) {
      later(
          () -> {
            while (true) {
              try (Socket socket = other.accept()) {
                socket.getOutputStream().write("SSH-2.0-OpenSSH_9.6\r\n".getBytes());
              }
            }
          });
      assertRefused(come(1, 2, SHORT), "rank 1 cannot meet the others at localhost:" + port);
    }
  }

  /** As the rendezvous of another job does, whose ranks are there already. */
  @Test
  void anotherProgramThatEndsTheConnection_isTold() throws Exception {
    try (ServerSocket other = new ServerSocket(port)) {
      later(
          () -> {
            while (true) {
              try (Socket socket = other.accept()) {
                socket.getInputStream().readNBytes(HELLO_BYTES);
              }
            }
          });
      assertRefused(
          come(1, 2, SHORT), "where rank 0 has to be: what listens there ends the connection");
    }
  }

  @Test
  void mismatch_isHeardByAll() throws Exception {
    List<SideChannel> worlds = worlds(allCome(3, LONG));
    for (int rank = 0; rank < 3; rank++) {
      worlds.get(rank).report(rank, List.of(rank == 1 ? NEXT : FORWARD));
    }
    for (SideChannel world : worlds) {
      assertThat(heard(world)).contains("rank(s) [0, 2] layer 0", "rank(s) [1] layer 1");
    }
  }

  @Test
  void failure_isHeardByAll() throws Exception {
    List<SideChannel> worlds = worlds(allCome(3, LONG));
    worlds.get(1).fail("no memory");
    for (SideChannel world : worlds) {
      assertThat(heard(world)).isEqualTo("rank 1 failed: no memory");
    }
  }

  @Test
  void lostRank_isHeardByAll_atOnce() throws Exception {
    List<Rendezvous> all = allCome(3, LONG);
    List<SideChannel> worlds = worlds(all);
    all.get(2).close(); // without taking its leave
    for (SideChannel world : worlds.subList(0, 2)) {
      assertThat(heard(world)).startsWith("rank 2 was lost");
    }
  }

  @Test
  void rankZeroThatIsLost_isHeardByAll_atOnce() throws Exception {
    List<Future<Rendezvous>> coming = List.of(come(1, 3, LONG), come(2, 3, LONG));
    try (RendezvousServer server = new RendezvousServer(port, 3, LONG);
        Socket zero = connected()) {
      hello(zero, 0, 3);
      server.meet(ID);
      SideChannel one = get(coming.get(0)).world();
      SideChannel two = get(coming.get(1)).world();
      assertThat(one.verdict()).isNull();
      server.close();
      assertThat(heard(one)).startsWith("rank 0 was lost");
      assertThat(heard(two)).startsWith("rank 0 was lost");
    }
  }

  /** A process that is stopped keeps its connections. */
  @Test
  void rankZeroThatDoesNotAnswer_isTold_inTime_andHoldsUpNobodyElse() throws Exception {
    try (ServerSocket stopped = new ServerSocket(port)) {
      Future<Rendezvous> coming = come(1, 2, SHORT);
      try (Socket socket = stopped.accept()) {
        DataOutputStream out = new DataOutputStream(socket.getOutputStream());
        out.writeUTF("");
        out.writeInt(0);
        out.flush();
        SideChannel world = get(coming).world();
        long start = System.nanoTime();
        Future<String> verdict = later(world::verdict);
        Thread.sleep(100);
        long others = System.nanoTime();
        world.report(1, List.of(FORWARD));
        world.fail("no memory");
        assertThat(Duration.ofNanos(System.nanoTime() - others)).isLessThan(Duration.ofMillis(300));
        assertThat(get(verdict)).startsWith("rank(s) [0] have not been heard of for 0.600 s");
        assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(SHORT.plus(MARGIN));
        world.close();
      }
    }
  }

  /** Its last call is on the roll before its leave is. */
  @Test
  void rankThatClosesRightAfterItsLastCall_isNotMissed_whoeverItIs() throws Exception {
    for (int hasty = 0; hasty < 2; hasty++) {
      findPort();
      List<SideChannel> worlds = worlds(allCome(2, LONG));
      SideChannel other = worlds.get(1 - hasty);
      other.report(1 - hasty, List.of(FORWARD));
      SideChannel first = worlds.get(hasty);
      int rank = hasty;
      Future<Void> closed =
          later(
              () -> {
                first.report(rank, List.of(FORWARD));
                first.close();
                return null;
              });
      Thread.sleep(200);
      assertThat(other.verdict()).isNull();
      other.report(1 - hasty, List.of(NEXT));
      assertThat(heard(other))
          .startsWith("rank(s) [%d] closed the group and will not come".formatted(hasty));
      other.close();
      get(closed);
    }
  }

  @Test
  void rankZeroThatClosesFirst_waitsForTheOthers() throws Exception {
    List<SideChannel> worlds = worlds(allCome(3, LONG));
    Future<Void> closed =
        later(
            () -> {
              worlds.get(0).close();
              return null;
            });
    Thread.sleep(300);
    assertThat(worlds.get(1).verdict()).isNull();
    assertThat(closed.isDone()).isFalse();
    worlds.get(1).close();
    worlds.get(2).close();
    get(closed);
  }

  /** It waits no longer than the timeout; then the others may go on, but not with it. */
  @Test
  void rankZeroThatHasGone_isMissed_onlyByThoseThatCallIt() throws Exception {
    List<SideChannel> worlds = worlds(allCome(2, SHORT));
    Future<Void> closed =
        later(
            () -> {
              worlds.get(0).close();
              return null;
            });
    while (!closed.isDone()) {
      assertThat(worlds.get(1).verdict()).isNull();
      Thread.sleep(20);
    }
    assertThat(worlds.get(1).verdict()).isNull();
    worlds.get(1).report(1, List.of(FORWARD));
    assertThat(worlds.get(1).verdict())
        .startsWith("rank(s) [0] closed the group and will not come");
  }

  /** Who closes first comes to the next group while the rendezvous of the last one still closes. */
  @Test
  void groupsAfterOneAnother_atTheSamePort() throws Exception {
    for (int round = 0; round < 3; round++) {
      List<Future<Void>> rounds = new ArrayList<>();
      for (int rank = 0; rank < 3; rank++) {
        JobEnvironment job = new JobEnvironment(3, rank, rank, "localhost", port);
        rounds.add(
            later(
                () -> {
                  for (int group = 0; group < 4; group++) {
                    Rendezvous rendezvous = new Rendezvous(job, new byte[] {(byte) group}, LONG);
                    assertThat(rendezvous.id()).containsExactly(group);
                    SideChannel world = rendezvous.world();
                    world.report(job.rank(), List.of(FORWARD));
                    assertThat(world.verdict()).isNull();
                    world.close();
                  }
                  return null;
                }));
      }
      for (Future<Void> each : rounds) {
        get(each);
      }
    }
  }

  @Test
  void smallerGroups_areComparedAmongThemselves_andClosedInAnyOrder() throws Exception {
    List<Rendezvous> all = allCome(4, LONG);
    List<SideChannel> worlds = worlds(all);
    List<SideChannel> halves = new ArrayList<>();
    for (int rank = 0; rank < 4; rank++) {
      halves.add(all.get(rank).group("/0:" + rank % 2, 2, rank / 2));
      halves.get(rank).report(rank / 2, List.of(rank == 3 ? NEXT : FORWARD));
    }
    assertThat(heard(halves.get(1))).contains("rank(s) [0] layer 0", "rank(s) [1] layer 1");
    assertThat(heard(halves.get(3))).isNotNull();
    assertThat(halves.get(0).verdict()).isNull();
    assertThat(worlds.get(1).verdict()).isNull();
    // The connection is kept for the last of them.
    worlds.get(0).close();
    halves.get(0).report(0, List.of(NEXT));
    halves.get(2).close();
    assertThat(heard(halves.get(0))).startsWith("rank(s) [1] closed the group");
    worlds.get(2).close();
    for (int rank : new int[] {1, 3}) {
      halves.get(rank).close();
      worlds.get(rank).close();
    }
    halves.get(0).close();
  }
}
