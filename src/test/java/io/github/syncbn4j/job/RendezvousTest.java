package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.DataOutputStream;
import java.io.OutputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;

/** How ranks find each other, and what becomes of those that are missing, wrong or strangers. */
class RendezvousTest extends RendezvousRanks {
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
}
