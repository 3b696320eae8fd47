package io.github.syncbn4j.cli.bench;

import java.util.Locale;

/** Other implementations, each compared with where it is on the class path. */
enum Peer {
  LIBTORCH("org.bytedeco:pytorch", "org.bytedeco.pytorch.Tensor") {
    @Override
    Contender open(Operands operands) {
      return new LibtorchNorm(operands);
    }
  },
  ONEDNN("org.bytedeco:dnnl", "org.bytedeco.dnnl.memory") {
    @Override
    Contender open(Operands operands) {
      return new OnednnNorm(operands);
    }
  };

  /** What a peer's own way to compute may lose against float64, beside rounding. */
  static final double ALLOWED_ERROR = 1e-3;

  private final String library;
  private final String type;

  Peer(String library, String type) {
    this.library = library;
    this.type = type;
  }

  /** As in the report. */
  String text() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** Why it is not there, in one line; null if it is. */
  String absence() {
    try {
      Class.forName(type, true, Peer.class.getClassLoader());
      return null;
    } catch (ClassNotFoundException e) {
      return library + " is not on the class path";
    } catch (LinkageError e) {
      Throwable cause = e;
      while (cause.getCause() != null) {
        cause = cause.getCause();
      }
      return cause.toString().lines().findFirst().orElse("");
    }
  }

  abstract Contender open(Operands operands);
}
