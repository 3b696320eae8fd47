package io.github.syncbn4j.sim;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.LongBinaryOperator;
import java.util.stream.Collectors;
import org.bytedeco.javacpp.BytePointer;

/**
 * Steers the simulated node whose stand-ins for CUDA and NCCL serve this process.
 *
 * <p>The system property {@code syncbn.sim.dir} names their folder. They must be loaded before
 * anything loads CUDA: by {@code LD_PRELOAD}, or by the use of this class before the first use of
 * the bindings. All of it may be called from any thread and acts on the whole process.
 */
public final class SimNode {
  private static final List<String> STAND_INS =
      List.of("libcuda.so.1", "libcudart.so.13", "libnccl.so.2");

  static {
    // The natives below are functions of the stand-in for the runtime: where it is loaded already,
    // loading the same file again only tells the JVM where they are.
    for (String name : STAND_INS) {
      System.load(directory().resolve(name).toString());
    }
  }

  private SimNode() {}

  /**
   * Makes the {@code k}-th call of a function from now return {@code code}; 1 is the next. 0 takes
   * all faults of the function back.
   *
   * <p>Two names are no functions: the {@code k}-th execution of a {@code "kernel"} poisons its
   * device with the code, and {@code "asyncError"} is what {@code ncclCommGetAsyncError} reports.
   */
  public static void fail(String name, long k, int code) {
    try (BytePointer text = new BytePointer(name)) {
      fail0(text.address(), k, code);
    }
  }

  /** How often a function was called since {@link #resetCalls()}. */
  public static long calls(String name) {
    try (BytePointer text = new BytePointer(name)) {
      return calls0(text.address());
    }
  }

  /** Starts counting calls and listing launches anew. */
  public static void resetCalls() {
    resetCalls0();
  }

  /** Every function that was called since {@link #resetCalls()}, with how often. */
  public static Map<String, Long> functions() {
    return text((to, capacity) -> functions0(to, capacity))
        .lines()
        .map(line -> line.split(" "))
        .collect(
            Collectors.toMap(
                word -> word[0], word -> Long.valueOf(word[1]), Long::sum, TreeMap::new));
  }

  /** A line for each living allocation around which something was written; empty for none. */
  public static String overruns() {
    return text((to, capacity) -> overruns0(to, capacity));
  }

  /**
   * What is alive on all devices: bytes of {@code "memory"} and {@code "hostMemory"}, numbers of
   * {@code "allocations"}, {@code "hostAllocations"}, {@code "streams"}, {@code "events"}, {@code
   * "communicators"} and {@code "graphs"}.
   */
  public static long live(String kind) {
    return live(kind, -1);
  }

  /** The same on one device; graphs belong to none. */
  public static long live(String kind, int device) {
    try (BytePointer text = new BytePointer(kind)) {
      long live = live0(text.address(), device);
      if (live < 0) {
        throw new IllegalArgumentException("no kind of thing: " + kind);
      }
      return live;
    }
  }

  /** Stops a device after the operations that run now, or lets it go on. */
  public static void stall(int device, boolean on) {
    stall0(device, on);
  }

  /** Clears a device's sticky error, which on hardware only the end of the process does. */
  public static void revive(int device) {
    revive0(device);
  }

  /** What a device's sticky error was; empty where it has none. */
  public static String failure(int device) {
    return text((to, capacity) -> failure0(device, to, capacity));
  }

  /** How many devices there are: SYNCBN_SIM_DEVICES, or 8. */
  public static int devices() {
    return devices0();
  }

  /** The seed of all that is drawn: set SYNCBN_SIM_SEED to repeat a run. */
  public static long seed() {
    return seed0();
  }

  /**
   * A line for each kernel launched since {@link #resetCalls()}: device, kernel, grid, block, as in
   * {@code 0 syncbn::stats<float> (4,1,1) (32,8,1)}.
   */
  public static String launches() {
    return text((to, capacity) -> launches0(to, capacity));
  }

  /**
   * Whether the stand-ins, and no other CUDA or NCCL, serve this process. Another runtime may be
   * mapped beside them, as the bindings do where a toolkit is installed, if nobody calls it.
   */
  public static boolean isMapped() {
    Set<Path> mapped = mappedLibraries();
    Set<Path> ours = STAND_INS.stream().map(directory()::resolve).collect(Collectors.toSet());
    if (!mapped.containsAll(ours)) {
      return false;
    }
    return mapped.stream()
        .filter(path -> !ours.contains(path))
        .allMatch(
            path -> {
              String name = path.getFileName().toString();
              return name.startsWith("libcudart.so") || isServed(path);
            });
  }

  /** The mapped files that are CUDA or NCCL, or that call them. */
  private static Set<Path> mappedLibraries() {
    try {
      return Files.readAllLines(Path.of("/proc/self/maps")).stream()
          .filter(line -> line.indexOf('/') >= 0)
          .map(line -> Path.of(line.substring(line.indexOf('/'))))
          .filter(
              path ->
                  path.getFileName()
                      .toString()
                      .matches("lib(cuda|cudart|nccl|jnicudart|syncbn_cuda)\\.so.*"))
          .collect(Collectors.toSet());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Whether a mapped library would call our runtime; never true of another driver or NCCL. */
  private static boolean isServed(Path library) {
    if (library.getFileName().toString().matches("lib(cuda|nccl)\\.so.*")) {
      return false;
    }
    try (BytePointer path = new BytePointer(library.toString())) {
      return serves0(path.address()) == 1;
    }
  }

  private static Path directory() {
    String directory = System.getProperty("syncbn.sim.dir");
    if (directory == null) {
      throw new IllegalStateException("the system property syncbn.sim.dir is not set");
    }
    try {
      return Path.of(directory).toRealPath();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** A text that a native copies to an address; it returns the bytes that all of it needs. */
  private static String text(LongBinaryOperator copy) {
    long capacity = copy.applyAsLong(0, 0);
    while (true) {
      try (BytePointer to = new BytePointer(capacity)) {
        long needed = copy.applyAsLong(to.address(), capacity);
        if (needed <= capacity) {
          return to.limit(needed - 1).getString(); // without the terminating zero
        }
        capacity = needed;
      }
    }
  }

  // Texts go as the addresses of their bytes, zero-terminated, so that the natives need no JNI.

  private static native void fail0(long name, long k, int code);

  private static native long calls0(long name);

  private static native void resetCalls0();

  private static native long live0(long kind, int device);

  private static native void stall0(int device, boolean on);

  private static native void revive0(int device);

  private static native long functions0(long to, long capacity);

  private static native long overruns0(long to, long capacity);

  private static native long failure0(int device, long to, long capacity);

  private static native int devices0();

  private static native long seed0();

  private static native long launches0(long to, long capacity);

  private static native int serves0(long path);
}
