package io.github.syncbn4j.failures;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.sim.SimNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.Map;

/**
 * A process of a job that reads on its standard input what to do, one line each, and says what came
 * of it:
 *
 * <pre>
 * train FAILURE FAULTY RANK SIZE PORT     seen CLASS SECONDS BEFORE AFTER TEXT,
 *                                         then closed SECONDS, and whether nothing leaks
 * again RANK SIZE PORT                    works
 * </pre>
 *
 * Words are separated by tabs. FAULTY is the rank that goes wrong, in a step after one that is
 * right.
 */
final class Worker {
  private static final int OUT_OF_MEMORY = 2;
  private static final Duration PATIENCE = Duration.ofSeconds(20);

  private static final long IN_THE_COLLECTIVE_MILLIS = 100;

  /** For the other ranks' kernels behind a collective that is over to run. */
  private static final long AFTER_THE_COLLECTIVE_MILLIS = 300;

  /** For what a rank has called to be known to the others, which takes a tenth of a second. */
  private static final long TO_BE_HEARD_MILLIS = 500;

  private Worker() {}

  public static void main(String... args) throws Exception {
    // What a first step loads takes longer than the timeouts here.
    try (Training alone = new Training(ReplicaGroup.gpus(0))) {
      alone.step();
    }
    System.out.println("ready");
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] words = line.split("\t");
      if (words[0].equals("train")) {
        train(
            Failure.valueOf(words[1]),
            Integer.parseInt(words[2]),
            ProcessFailuresTest.environment(words[3], words[4], words[5]));
      } else {
        again(ProcessFailuresTest.environment(words[1], words[2], words[3]));
      }
    }
  }

  private static ReplicaGroup group(Map<String, String> environment, Duration timeout) {
    return ReplicaGroup.builder().environment(environment).timeout(timeout).build();
  }

  private static void train(Failure failure, int faulty, Map<String, String> environment)
      throws Exception {
    int rank = Integer.parseInt(environment.get("RANK"));
    Map<String, Long> liveBefore = SimFailuresTest.live();
    Training training = null;
    RuntimeException thrown = null;
    String before = "";
    String after = "";
    long start = System.nanoTime();
    try {
      if (failure != Failure.MISSING || rank != faulty) {
        training = new Training(group(environment, ProcessFailuresTest.TIMEOUT));
        Replica replica = training.group.replicas().get(0);
        training.step(replica);
        before = training.state(replica);
        if (failure == Failure.STALLS) {
          Thread.sleep(TO_BE_HEARD_MILLIS);
        }
        start = System.nanoTime();
        if (rank == faulty) {
          goWrong(training, replica, failure);
        } else {
          if (failure == Failure.DIES_IN && rank == ProcessFailuresTest.PROCESSES / 2) {
            // So that the collective does not end.
            while (training.group.failure().isEmpty()) {
              Thread.sleep(10);
            }
            start = System.nanoTime();
          }
          training.step(replica);
        }
      }
    } catch (RuntimeException e) {
      thrown = e;
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    if (training != null) {
      after = training.state(training.group.replicas().get(0));
    }
    say(
        "seen",
        thrown == null ? "" : thrown.getClass().getSimpleName(),
        seconds,
        before,
        after,
        thrown == null ? "" : thrown.getMessage());
    start = System.nanoTime();
    if (training != null) {
      training.close();
    }
    say("closed", (System.nanoTime() - start) / 1e9, SimFailuresTest.live().equals(liveBefore));
  }

  private static void goWrong(Training training, Replica replica, Failure failure)
      throws InterruptedException, IOException {
    switch (failure) {
      case DIES_BEFORE -> Runtime.getRuntime().halt(1);
      case DIES_IN -> {
        training.first.forward(replica);
        Thread.sleep(IN_THE_COLLECTIVE_MILLIS);
        Runtime.getRuntime().halt(1);
      }
      case DIES_AFTER -> {
        training.first.forward(replica);
        replica.synchronize();
        Thread.sleep(AFTER_THE_COLLECTIVE_MILLIS);
        Runtime.getRuntime().halt(1);
      }
      case STALLS -> {
        // Somebody else has it go on.
        new ProcessBuilder("kill", "-STOP", "" + ProcessHandle.current().pid()).start().waitFor();
        training.step(replica);
      }
      case OUT_OF_MEMORY -> {
        SimNode.fail("cudaMalloc", 1, OUT_OF_MEMORY);
        training.first.forwardWithResidual(replica);
      }
      case THROWS -> {
        training.first.forward(replica);
        throw new IllegalStateException("no more images");
      }
      case WRONG_ORDER -> training.second.comeTo(replica);
      case WRONG_CHANNELS -> training.wide.comeTo(replica);
      case WRONG_DTYPE -> training.exact.comeTo(replica);
      default -> throw new IllegalArgumentException(failure.toString());
    }
  }

  private static void again(Map<String, String> environment) {
    try (Training next = new Training(group(environment, PATIENCE))) {
      next.step(next.group.replicas().get(0));
      say("works");
    } catch (RuntimeException e) {
      say("fails", e);
    }
  }

  private static void say(Object... words) {
    String[] texts = new String[words.length];
    for (int i = 0; i < words.length; i++) {
      texts[i] = String.valueOf(words[i]).replaceAll("\\s+", " ");
    }
    System.out.println(String.join("\t", texts));
  }
}
