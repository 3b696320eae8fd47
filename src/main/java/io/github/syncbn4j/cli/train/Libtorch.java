package io.github.syncbn4j.cli.train;

import org.bytedeco.pytorch.global.torch;

/** Where the network's tensors are, and why there. */
enum Libtorch {
  HOST("the host", "the replicas are on the CPU"),
  HOST_WITHOUT_CUDA("the host", "this libtorch has no CUDA"),
  GPUS("its replica's GPU", "this libtorch has CUDA");

  private final String where;
  private final String reason;

  Libtorch(String where, String reason) {
    this.where = where;
    this.reason = reason;
  }

  /**
   * @param gpu whether the replicas are GPUs
   */
  static Libtorch of(boolean gpu) {
    if (!gpu) {
      return HOST;
    }
    return torch.cuda_is_available() ? GPUS : HOST_WITHOUT_CUDA;
  }

  String where() {
    return where;
  }

  String reason() {
    return reason;
  }

  /** Rounds alike for every shape and run, so that runs can be compared step by step. */
  void comparable() {
    // Replicas are what runs in parallel.
    torch.set_num_threads(1);
    if (this == GPUS) {
      torch.globalContext().setAllowTF32CuDNN(false);
      torch.globalContext().setDeterministicCuDNN(true);
    }
  }
}
