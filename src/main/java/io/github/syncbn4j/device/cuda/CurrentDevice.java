package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Cleanup;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.cuda.global.cudart;

/** The calling thread's current device, which a call of the runtime needs, and puts back. */
final class CurrentDevice {
  private static final ThreadLocal<int[]> ANSWER = ThreadLocal.withInitial(() -> new int[1]);

  private final String id;
  private final int ordinal;

  /**
   * @param id of the device, for messages
   */
  CurrentDevice(String id, int ordinal) {
    this.id = id;
    this.ordinal = ordinal;
  }

  /** For the runtime to write a number to, until the thread's next call: a step makes nothing. */
  static int[] answer() {
    return ANSWER.get();
  }

  /** Makes the device the thread's current one and returns the one before. */
  int enter() {
    int[] found = answer();
    check(cudart.cudaGetDevice(found), "cudaGetDevice");
    int previous = found[0];
    if (previous != ordinal) {
      int error = cudart.cudaSetDevice(ordinal);
      if (error != cudart.cudaSuccess) {
        // A device that has failed has become the current one all the same.
        cudart.cudaSetDevice(previous);
        check(error, "cudaSetDevice");
      }
    }
    return previous;
  }

  void leave(int previous) {
    if (previous != ordinal) {
      check(cudart.cudaSetDevice(previous), "cudaSetDevice");
    }
  }

  /**
   * Runs all of them, also where the device cannot be made the current one: they know their device,
   * and it being current only keeps the runtime from waking another.
   */
  void release(List<Runnable> releases) {
    int[] previous = {ordinal};
    List<Runnable> actions = new ArrayList<>();
    actions.add(() -> previous[0] = enter());
    actions.addAll(releases);
    actions.add(() -> leave(previous[0]));
    Cleanup.runAll(actions);
  }

  /** After the runtime's answer to a call for the device. */
  void check(int error, String call) {
    if (error != cudart.cudaSuccess) {
      cudart.cudaGetLastError();
      CudaRuntime.check(id, error, call);
    }
  }
}
