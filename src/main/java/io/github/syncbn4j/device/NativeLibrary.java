package io.github.syncbn4j.device;

import java.util.List;
import org.bytedeco.javacpp.Loader;

/** Loads native code, and says in one line why that fails and what to do about it. */
public final class NativeLibrary {
  private static final String PLATFORM = "linux-x86_64";

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
      Throwable deepest = e;
      while (deepest.getCause() != null) {
        deepest = deepest.getCause();
      }
      add(reasons, what, String.valueOf(deepest.getMessage()));
      return e;
    }
  }

  private static void add(List<String> reasons, String what, String why) {
    reasons.add(Remedy.with(what + " cannot be loaded: " + why));
  }
}
