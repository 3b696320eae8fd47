package io.github.syncbn4j.cli.bench;

import java.util.List;

/** The yardstick: x copied, by whichever way is fastest; by each part what it has of it. */
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
    return operands.place.copies().stream()
        .map(
            copy ->
                new Way(
                    (part, set) ->
                        copy.run(
                            part,
                            operands.out(part, set),
                            operands.x(part, set),
                            operands.bytes(part))))
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
