package io.github.syncbn4j.cli.bench;

import java.util.Arrays;
import java.util.List;

/** The yardstick: x copied, by whichever kind of stores is fastest. */
final class Copies implements Contender {
  static final String NAME = "copy";

  private final Operands operands;
  private final NativeCopy copy;

  /**
   * @param copy stays the caller's
   */
  Copies(Operands operands, NativeCopy copy) {
    this.operands = operands;
    this.copy = copy;
  }

  @Override
  public String name() {
    return NAME;
  }

  @Override
  public List<Way> ways(Pass pass) {
    long bytes = operands.problem.bytes();
    return Arrays.stream(NativeCopy.Kind.values())
        .map(kind -> new Way(set -> copy.run(kind, operands.out(set), operands.x(set), bytes)))
        .toList();
  }

  @Override
  public List<double[]> parameterGradients() {
    throw new UnsupportedOperationException("a copy has none");
  }

  @Override
  public double allowedError() {
    return 0;
  }

  @Override
  public void close() {}
}
