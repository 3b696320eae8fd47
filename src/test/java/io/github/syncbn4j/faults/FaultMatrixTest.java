package io.github.syncbn4j.faults;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;

import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceMemoryException;
import io.github.syncbn4j.device.cuda.Nccl;
import io.github.syncbn4j.sim.SimNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.LongFunction;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.Timeout;

/**
 * Every function of CUDA and NCCL that the library calls, and every execution of a kernel, fails
 * once: a typed exception says so, nothing leaks, the group can be closed, and the next one works.
 */
@Tag("sim")
@Timeout(600)
class FaultMatrixTest {
  private static final int CUDA_ERROR_UNKNOWN = 999;
  private static final int CUDA_ERROR_OUT_OF_MEMORY = 2;
  private static final int CUDA_ERROR_LAUNCH_FAILURE = 719;
  private static final int NCCL_SYSTEM_ERROR = 2;

  /** Of one failure and what follows: nothing hangs. */
  private static final Duration AT_MOST = Duration.ofSeconds(60);

  /** The simulated node's name for what runs in a stream, where a launch is only enqueued. */
  private static final String KERNEL = "kernel";

  /** What a function that does not do its work leaves alive, by the kind that is counted. */
  private static final Map<String, String> RELEASES =
      Map.of(
          "cudaFree", "allocations",
          "cudaFreeHost", "hostAllocations",
          "cudaStreamDestroy", "streams",
          "cudaEventDestroy", "events",
          "ncclCommDestroy", "communicators",
          "ncclCommAbort", "communicators");

  /** Called once a process, when CUDA and NCCL are looked at: {@link UnusableNodeTest}. */
  private static final Set<String> LOOKED_AT_ONCE = Set.of("cudaGetDeviceCount", "ncclGetVersion");

  /** Functions whose failure nobody can see, and why. */
  private static final Map<String, String> CANNOT_FAIL =
      Map.of(
          "cudaGetErrorName", "returns a text",
          "cudaGetErrorString", "returns a text",
          "cuGetErrorString", "asked for the text of an error that is being reported",
          "ncclGetErrorString", "returns a text",
          "ncclGetLastError", "returns a text",
          "cudaGetLastError", "returns the error that is being reported, and forgets it");

  /** While the host waits for a stream: another run may do with fewer calls. */
  private static final Set<String> ASKED_AS_OFTEN_AS_IT_TAKES =
      Set.of("cudaStreamQuery", "cudaEventQuery", "cudaGetDevice", "cudaSetDevice");

  /**
   * Called only where something is late or has failed, where a group is split, or by a replica that
   * is alone: in tests of their own below, of groups that are split, and of one launch a direction.
   */
  private static final Set<String> NOT_IN_THE_WORKLOAD =
      Set.of(
          "ncclCommAbort",
          "cudaEventQuery",
          "ncclCommSplit",
          "ncclCommCount",
          "ncclCommUserRank",
          "cudaDeviceGetAttribute",
          "cudaFuncSetAttribute");

  private static final List<String> KINDS =
      List.of("allocations", "hostAllocations", "streams", "events", "communicators", "graphs");

  @BeforeAll
  static void lookAtTheNode() {
    assertThat(Nccl.isAvailable()).isTrue();
  }

  @TestFactory
  Stream<DynamicTest> firstSecondAndLastCall_oneThread() {
    return matrix(Workload.Threads.ONE, FaultMatrixTest::ends);
  }

  @TestFactory
  Stream<DynamicTest> firstSecondAndLastCall_aThreadEach() {
    return matrix(Workload.Threads.ONE_EACH, FaultMatrixTest::ends);
  }

  @TestFactory
  @Tag("full")
  Stream<DynamicTest> everyCall_oneThread() {
    return matrix(Workload.Threads.ONE, count -> LongStream.rangeClosed(1, count));
  }

  @TestFactory
  @Tag("full")
  Stream<DynamicTest> everyCall_aThreadEach() {
    return matrix(Workload.Threads.ONE_EACH, count -> LongStream.rangeClosed(1, count));
  }

  private static LongStream ends(long count) {
    return LongStream.of(1, 2, count).filter(k -> k <= count).distinct();
  }

  private static Stream<DynamicTest> matrix(
      Workload.Threads threads, LongFunction<LongStream> calls) {
    Baseline baseline = Baseline.of(threads);
    List<String> functions = new ArrayList<>(baseline.counts.keySet());
    functions.sort(
        Comparator.comparing(baseline.counts::get)); // the many calls of a wait come last
    return functions.stream()
        .map(
            function -> {
              long count = baseline.counts.get(function);
              long[] which = calls.apply(count).toArray();
              return DynamicTest.dynamicTest(
                  "%s x %d".formatted(function, count),
                  () -> {
                    for (long k : which) {
                      assertTimeoutPreemptively(
                          AT_MOST, () -> fails(baseline, function, k), "call " + k);
                    }
                    System.out.printf(
                        "fault matrix, threads %s: %-28s %5d calls, %5d made to fail%n",
                        threads, function, count, which.length);
                  });
            });
  }

  /** The workload without a fault. */
  private record Baseline(
      Workload.Threads threads, Map<String, Long> counts, List<float[]> results) {
    static Baseline of(Workload.Threads threads) {
      Map<String, Long> before = live();
      List<float[]> results;
      Map<String, Long> counts;
      try (Workload workload = new Workload(threads)) {
        SimNode.resetCalls();
        results = workload.run();
        workload.group().close();
        counts = SimNode.functions();
      }
      assertThat(live()).as("the workload leaks nothing").isEqualTo(before);
      return new Baseline(threads, counts, results);
    }
  }

  private static void fails(Baseline baseline, String function, long k) {
    String what = "call %d of %s, threads %s".formatted(k, function, baseline.threads);
    Map<String, Long> before = live();
    try (Workload workload = new Workload(baseline.threads)) {
      RuntimeException thrown;
      boolean reached;
      SimNode.resetCalls();
      SimNode.fail(function, k, codeOf(function));
      try {
        thrown = seenByTheUser(workload, function.equals(KERNEL), what);
        reached = SimNode.calls(function) >= k;
      } finally {
        SimNode.fail(function, 0, 0);
        SimNode.revive(0);
        SimNode.revive(1);
      }
      if (reached) {
        expectTyped(thrown, function, what);
      } else {
        // How often a stream is asked whether it is idle depends on the machine.
        assertThat(function).as("%s was not reached", what).isIn(ASKED_AS_OFTEN_AS_IT_TAKES);
        assertThat(thrown).as("%s was not reached", what).isNull();
      }
    }
    expectNothingLeft(before, function, what);
    assertThat(Baseline.of(baseline.threads).results)
        .as("the next group after %s", what)
        .usingRecursiveComparison()
        .isEqualTo(baseline.results);
  }

  /** Runs the workload to its end or failure, and closes the group. Returns what was thrown. */
  private static RuntimeException seenByTheUser(
      Workload workload, boolean deviceIsDead, String what) {
    RuntimeException thrown = null;
    try {
      workload.run();
    } catch (RuntimeException e) {
      thrown = e;
    }
    ReplicaGroup group = workload.group();
    if (group == null) {
      return thrown;
    }
    boolean failed = group.failure().isPresent();
    if (failed) {
      for (ThrowingCallable call :
          List.<ThrowingCallable>of(group::check, workload::anotherStep, group::synchronize)) {
        assertThatThrownBy(call)
            .as("the group is unusable, or closed, after %s", what)
            .isInstanceOfAny(
                DeviceException.class, CollectiveException.class, IllegalStateException.class);
      }
    } else if (thrown != null && !workload.hasClosed() && !deviceIsDead) {
      workload.anotherStep(); // what failed was no part of a step
    }
    try {
      group.close();
    } catch (RuntimeException e) {
      if (thrown == null) {
        thrown = e;
      } else {
        // A device that is dead says so again, unless the group knows of it.
        assertThat(deviceIsDead && !failed)
            .as("%s: %s, and by close: %s", what, thrown, e)
            .isTrue();
      }
    }
    group.close();
    return thrown;
  }

  private static void expectTyped(RuntimeException thrown, String function, String what) {
    assertThat(thrown).as(what).isInstanceOfAny(DeviceException.class, CollectiveException.class);
    DeviceException failure =
        (DeviceException) (thrown instanceof DeviceException ? thrown : thrown.getCause());
    assertThat(failure).as(what).isNotNull();
    assertThat(failure.device())
        .as("device of %s: %s", what, failure)
        .matches(function.endsWith("GetVersion") ? "cuda" : "gpu:[01](, gpu:1)?");
    if (function.equals(KERNEL)) {
      // Whatever call comes next says so, NCCL's in its own words.
      assertThat(failure.getMessage())
          .as(what)
          .containsAnyOf("unspecified launch failure", "unhandled cuda error");
    } else if (function.equals("cudaLaunchKernelExC")) {
      assertThat(failure.call()).as(what).startsWith("syncbn_cuda_");
      assertThat(failure).as(what).hasMessageContaining("unknown error");
    } else {
      assertThat(failure.call()).as(what).startsWith(function);
      assertThat(failure.code()).as(what).isEqualTo(codeOf(function));
      assertThat(failure)
          .as(what)
          .hasMessageContaining(
              function.startsWith("nccl") ? "unhandled system error" : "unknown error");
    }
  }

  private static int codeOf(String function) {
    if (function.equals(KERNEL)) {
      return CUDA_ERROR_LAUNCH_FAILURE;
    }
    return function.startsWith("nccl") ? NCCL_SYSTEM_ERROR : CUDA_ERROR_UNKNOWN;
  }

  /** A release that refuses leaves one thing behind, and nothing else. */
  private static void expectNothingLeft(Map<String, Long> before, String function, String what) {
    Map<String, Long> left = live();
    String refused = RELEASES.get(function);
    if (refused != null && left.get(refused) == before.get(refused) + 1) {
      left.put(refused, before.get(refused));
    }
    assertThat(left).as("left after %s", what).isEqualTo(before);
  }

  private static Map<String, Long> live() {
    Map<String, Long> live = new TreeMap<>();
    KINDS.forEach(kind -> live.put(kind, SimNode.live(kind)));
    return live;
  }

  /** Nothing has been begun where memory is missing, so the group goes on. */
  @Test
  void outOfMemory_atEachAllocation() {
    long allocations = Baseline.of(Workload.Threads.ONE).counts.get("cudaMalloc");
    for (long k = 1; k <= allocations; k++) {
      String what = "allocation %d of %d".formatted(k, allocations);
      Map<String, Long> before = live();
      try (Workload workload = new Workload(Workload.Threads.ONE)) {
        SimNode.resetCalls();
        SimNode.fail("cudaMalloc", k, CUDA_ERROR_OUT_OF_MEMORY);
        assertThatThrownBy(workload::run)
            .as(what)
            .isInstanceOf(DeviceMemoryException.class)
            .hasMessageMatching(
                "gpu:[01]: cudaMalloc of \\d+ bytes failed with 2: .*\\(out of memory\\)");
        assertThat(workload.group().failure()).as(what).isEmpty();
        workload.anotherStep();
        workload.group().close();
      }
      assertThat(live()).as("left after %s", what).isEqualTo(before);
    }
  }

  @Test
  void outOfHostMemory_atEachAllocation() {
    Baseline baseline = Baseline.of(Workload.Threads.ONE);
    Map<String, Long> before = live();
    for (long k = 1; k <= baseline.counts.get("cudaHostAlloc"); k++) {
      SimNode.fail("cudaHostAlloc", k, CUDA_ERROR_OUT_OF_MEMORY);
      assertThatThrownBy(() -> ReplicaGroup.gpus(0, 1))
          .isInstanceOf(DeviceException.class)
          .hasMessage(
              "gpu:%d: cudaHostAlloc failed with 2: cudaErrorMemoryAllocation (out of memory)"
                  .formatted(k - 1));
      assertThat(live()).isEqualTo(before);
    }
  }

  @Test
  void abortThatFails_isReportedBesideTheFailure() {
    for (int k = 1; k <= 2; k++) {
      Map<String, Long> before = live();
      try (Workload workload = new Workload(Workload.Threads.ONE)) {
        SimNode.fail("ncclGroupEnd", 1, NCCL_SYSTEM_ERROR);
        SimNode.fail("ncclCommAbort", k, NCCL_SYSTEM_ERROR);
        RuntimeException thrown = seenByTheUser(workload, false, "an abort that fails");
        expectTyped(thrown, "ncclGroupEnd", "an abort that fails");
        assertThat(thrown.getSuppressed()).hasSize(1);
        expectTyped(
            (RuntimeException) thrown.getSuppressed()[0], "ncclCommAbort", "an abort that fails");
      }
      expectNothingLeft(before, "ncclCommAbort", "an abort that fails");
    }
  }

  /** A replica that waits for long looks whether the others' devices are alive. */
  @Test
  void lookAtAPeerThatFails() {
    Map<String, Long> before = live();
    try (Workload workload = new Workload(Workload.Threads.ONE)) {
      workload.run();
      SimNode.stall(1, true);
      SimNode.fail("cudaEventQuery", 1, CUDA_ERROR_UNKNOWN);
      try {
        Throwable thrown = catchThrowable(workload::step);
        expectTyped((RuntimeException) thrown, "cudaEventQuery", "a look at a peer");
      } finally {
        SimNode.fail("cudaEventQuery", 0, 0);
        SimNode.stall(1, false);
      }
      workload.group().close();
    }
    assertThat(live()).isEqualTo(before);
  }

  /** What the library calls, its commands apart, is in the matrix, or has a reason not to be. */
  @Test
  void everyFunctionThatTheLibraryCalls_isMadeToFail() throws IOException {
    Set<String> called = new TreeSet<>();
    for (Workload.Threads threads : Workload.Threads.values()) {
      called.addAll(Baseline.of(threads).counts.keySet());
    }
    called.addAll(LOOKED_AT_ONCE);
    called.addAll(NOT_IN_THE_WORKLOAD);
    called.addAll(CANNOT_FAIL.keySet());
    assertThat(functionsInTheSources()).isSubsetOf(called).hasSizeGreaterThan(20);
  }

  private static Set<String> functionsInTheSources() throws IOException {
    Pattern inJava = Pattern.compile("\\b(?:cudart|nccl)\\s*\\.((?:cu|cuda|nccl)[A-Z]\\w*)\\(");
    Pattern inKernels = Pattern.compile("\\b((?:cu|cuda|nccl)[A-Z]\\w*)\\(");
    Set<String> functions = new TreeSet<>();
    for (Map.Entry<Path, Pattern> sources :
        Map.of(Path.of("src/main/java"), inJava, Path.of("native/cuda"), inKernels).entrySet()) {
      try (Stream<Path> files = Files.walk(sources.getKey())) {
        for (Path file : files.filter(f -> f.toString().matches("(?!.*/cli/).*\\.\\w+")).toList()) {
          Matcher matcher = sources.getValue().matcher(Files.readString(file));
          while (matcher.find()) {
            functions.add(matcher.group(1));
          }
        }
      }
    }
    return functions;
  }
}
