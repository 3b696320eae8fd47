package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.DataOutputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;

/** What ranks that have met hear of each other, until they part. */
class RendezvousWatchTest extends RendezvousRanks {
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
