package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What is found in what ranks call, and who is named. */
class RollTest {
  private static final Duration LONG = Duration.ofMinutes(1);
  private static final Duration SHORT = Duration.ofMillis(200);
  private static final Call FORWARD = forward(0, 0);
  private static final Call NEXT = forward(1, 0);

  private static Call forward(int layer, long step) {
    return new Call((long) Signature.of(layer, step, false), 64, 0);
  }

  private static Roll roll(Duration timeout, int ranks) {
    return new Roll(ranks, timeout);
  }

  private static void allReport(Roll roll, Call... calls) {
    for (int rank = 0; rank < roll.size(); rank++) {
      roll.report(rank, Arrays.asList(calls));
    }
  }

  @Test
  void sameCalls_areFine_inWhateverPortionsTheyAreReported() {
    Roll roll = roll(LONG, 3);
    roll.report(0, List.of(FORWARD, NEXT, FORWARD));
    roll.report(1, List.of(FORWARD));
    roll.report(2, List.of(FORWARD, NEXT));
    roll.report(1, List.of(NEXT, FORWARD));
    roll.report(2, List.of(FORWARD));
    assertThat(roll.verdict()).isNull();
  }

  @Test
  void otherLayer_isToldWithTheRanksOfEach() {
    Roll roll = roll(LONG, 4);
    allReport(roll, FORWARD);
    for (int rank : new int[] {0, 2, 3}) {
      roll.report(rank, List.of(NEXT));
    }
    assertThat(roll.verdict()).isNull();
    roll.report(1, List.of(forward(4, 7)));
    assertThat(roll.verdict())
        .isEqualTo(
            "the ranks called different things: "
                + "rank(s) [0, 2, 3] layer 1, forward of step 0, 64 channels of float32; "
                + "rank(s) [1] layer 4, forward of step 7, 64 channels of float32");
  }

  @Test
  void otherChannels_dtype_count_collective_areToldApart() {
    long what = FORWARD.what();
    List<Call> different =
        List.of(
            FORWARD,
            new Call(what, 65, 0),
            new Call(what, 64, 3),
            new Call(what, 64, Call.COUNTED),
            new Call(Call.collective(-1), 64, 0),
            new Call(Call.collective(2), 64, 0),
            new Call(Call.collective(2), 64, 4),
            Call.CONNECT,
            Call.SPLIT);
    Roll roll = roll(LONG, different.size());
    for (int rank = 0; rank < different.size(); rank++) {
      roll.report(rank, List.of(different.get(rank)));
    }
    assertThat(roll.verdict())
        .contains(
            "[0] layer 0, forward of step 0, 64 channels of float32;",
            "[1] layer 0, forward of step 0, 65 channels of float32;",
            "[2] layer 0, forward of step 0, 64 channels of float64;",
            "[3] layer 0, forward of step 0, 64 channels of float32, counted one by one;",
            "[4] sum of 64 float32;",
            "[5] broadcast of 64 float32 from rank 2;",
            "[6] broadcast of 64 bool from rank 2;",
            "[7] connecting to all ranks;",
            "[8] splitting the group");
  }

  @Test
  void absentRanks_areNamed_onceTheTimeoutIsOver_withTheirLastCall() throws Exception {
    Roll roll = roll(SHORT, 4);
    allReport(roll, FORWARD);
    roll.report(1, List.of(NEXT, FORWARD));
    roll.report(3, List.of(NEXT));
    assertThat(roll.verdict()).isNull();
    Thread.sleep(SHORT.toMillis() + 5);
    assertThat(roll.verdict())
        .isEqualTo(
            "rank(s) [0, 2] did not come within 0.200 s where rank(s) [1, 3] wait: "
                + "layer 1, forward of step 0, 64 channels of float32 "
                + "(their last call: layer 0, forward of step 0, 64 channels of float32)");
  }

  /**
   * A GPU's thread enqueues many calls at once; each waits for the others' after the one before.
   */
  @Test
  void slowRank_isNotAbsent_whereAnotherIsManyCallsAhead() throws Exception {
    Duration timeout = Duration.ofMillis(500);
    Roll roll = roll(timeout, 2);
    roll.report(1, List.of(FORWARD, NEXT, FORWARD, NEXT));
    for (Call call : List.of(FORWARD, NEXT, FORWARD)) {
      Thread.sleep(200);
      roll.report(0, List.of(call));
      roll.report(1, List.of()); // it is alive
      assertThat(roll.verdict()).isNull();
    }
    Thread.sleep(timeout.toMillis() + 5);
    assertThat(roll.verdict())
        .startsWith("rank(s) [0] did not come within 0.500 s where rank(s) [1] wait: layer 1");
  }

  @Test
  void ranksThatNeverCalled_areNamed() throws Exception {
    Roll roll = roll(SHORT, 2);
    roll.report(1, List.of(FORWARD));
    Thread.sleep(SHORT.toMillis() + 5);
    assertThat(roll.verdict())
        .startsWith("rank(s) [0] did not come within 0.200 s where rank(s) [1] wait: layer 0")
        .endsWith("(no call of theirs is known)");
  }

  @Test
  void nobodyIsWaitedFor_whereAllHaveCome() throws Exception {
    Roll roll = roll(SHORT, 2);
    allReport(roll, FORWARD);
    Thread.sleep(SHORT.toMillis() + 5);
    allReport(roll);
    assertThat(roll.verdict()).isNull();
  }

  @Test
  void silentRank_isNamed_thoughNobodyWaits_butNotBeforeItsFirstWord() throws Exception {
    Roll roll = roll(SHORT, 3);
    roll.report(0, List.of(FORWARD));
    roll.report(1, List.of(FORWARD));
    roll.report(2, List.of(FORWARD));
    Thread.sleep(SHORT.toMillis() + 5);
    roll.report(0, List.of());
    roll.leave(1);
    assertThat(roll.verdict())
        .isEqualTo("rank(s) [2] have not been heard of for 0.200 s: stopped, or cannot be reached");

    Roll young = roll(SHORT, 2);
    Thread.sleep(SHORT.toMillis() + 5);
    young.report(0, List.of());
    assertThat(young.verdict()).isNull();
  }

  @Test
  void lostCall_isTakenForTheRightOne() throws Exception {
    Roll roll = roll(SHORT, 3);
    roll.report(0, Arrays.asList(FORWARD, null));
    roll.report(1, Arrays.asList(null, NEXT));
    roll.report(2, Arrays.asList(FORWARD, NEXT));
    assertThat(roll.verdict()).isNull();
    roll.report(0, Arrays.asList((Call) null));
    Thread.sleep(SHORT.toMillis() + 5);
    assertThat(roll.verdict())
        .startsWith("rank(s) [1, 2] did not come")
        .contains("where rank(s) [0] wait: a call that is not known (their last call: layer 1");
  }

  @Test
  void mismatchAmongLostCalls_isFoundInTheOthers() {
    Roll roll = roll(LONG, 3);
    roll.report(0, Arrays.asList((Call) null));
    roll.report(1, List.of(FORWARD));
    roll.report(2, List.of(NEXT));
    assertThat(roll.verdict()).contains("[1] layer 0", "[2] layer 1").doesNotContain("[0");
  }

  @Test
  void rankThatHasLeft_isNotMissed_untilSomebodyWaitsForIt() {
    Roll roll = roll(LONG, 2);
    allReport(roll, FORWARD);
    roll.leave(1);
    assertThat(roll.verdict()).isNull();
    roll.report(0, List.of(NEXT));
    assertThat(roll.verdict())
        .isEqualTo(
            "rank(s) [1] closed the group and will not come where rank(s) [0] wait: "
                + "layer 1, forward of step 0, 64 channels of float32");
  }

  @Test
  void rankThatLeavesAhead_isCaughtUpWith() {
    Roll roll = roll(LONG, 2);
    roll.report(1, List.of(FORWARD));
    roll.leave(1);
    assertThat(roll.verdict()).isNull();
    roll.report(0, List.of(FORWARD));
    assertThat(roll.verdict()).isNull();
  }

  @Test
  void firstVerdict_stands() {
    Roll roll = roll(LONG, 2);
    roll.conclude("rank 1 failed: no memory");
    roll.report(0, List.of(FORWARD));
    roll.report(1, List.of(NEXT));
    roll.conclude("later");
    assertThat(roll.verdict()).isEqualTo("rank 1 failed: no memory");
  }
}
