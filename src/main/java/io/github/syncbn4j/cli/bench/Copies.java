package io.github.syncbn4j.cli.bench;

import java.util.List;

/** The yardstick: x copied, by whichever way is fastest. */
final class Copies implements Contender {
  static final String NAME = "copy";

  private final Operands operands;

  Copies(Operands operands) {
    this.operands = operands;
  }

  @Override
  public String name() {
    return NAME;
  }

  @Override
  public List<Way> ways(Pass pass) {
    long bytes = operands.problem.bytes();
    return operands.place.copies().stream()
        .map(copy -> new Way(set -> copy.run(operands.out(set), operands.x(set), bytes)))
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
