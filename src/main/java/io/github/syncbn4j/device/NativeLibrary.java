package io.github.syncbn4j.device;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.bytedeco.javacpp.Loader;

/** Loads native code, and says in one line why that fails and what to do about it. */
public final class NativeLibrary {
  private static final String PLATFORM = "linux-x86_64";

  /** In JavaCPP's cache, for all that is copied there. */
  private static final long BYTES_NEEDED = 8_000_000;

  /** Why a binding could not be loaded: the JVM says less of it when the next one needs it. */
  private static final Map<String, String> FAILED = new ConcurrentHashMap<>();

  private NativeLibrary() {}

  /**
   * To be called once for each: what a failed load leaves behind in the JVM cannot be undone.
   *
   * @param what is loaded, in words
   * @param reasons why it cannot be loaded is added here
   * @return what the loader threw; null if the library is there
   */
  public static Throwable load(Class<?> binding, String what, List<String> reasons) {
    if (!Loader.getPlatform().equals(PLATFORM)) {
      add(reasons, what, "this machine is " + Loader.getPlatform());
      return null;
    }
    try {
      Loader.load(binding);
      return null;
    } catch (LinkageError | RuntimeException e) {
      String why = why(e);
      FAILED.put(binding.getName(), why);
      add(reasons, what, why);
      return e;
    }
  }

  private static String why(Throwable e) {
    String message = String.valueOf(e.getMessage()); // Could not initialize class NAME
    String before = FAILED.get(message.substring(message.lastIndexOf(' ') + 1));
    if (before != null) {
      return before;
    }
    Throwable deepest = e;
    while (deepest.getCause() != null) {
      deepest = deepest.getCause();
    }
    // The JVM puts the file before what the system's loader says, which may begin with it too.
    return String.valueOf(deepest.getMessage()).replaceFirst("^(.+?: )\\1", "$1")
        + cacheThatIsFull();
  }

  /** JavaCPP does not tell that it could not copy a library. */
  private static String cacheThatIsFull() {
    try {
      long left = Loader.getCacheDir().getUsableSpace();
      return left < BYTES_NEEDED
          ? "; JavaCPP's cache, %s, has %.1f MB left".formatted(Loader.getCacheDir(), left / 1e6)
          : "";
    } catch (IOException e) {
      return "";
    }
  }

  private static void add(List<String> reasons, String what, String why) {
    reasons.add(Remedy.with(what + " cannot be loaded: " + why));
  }
}
