package io.github.syncbn4j.cli.bench;

import java.util.List;

/** One of those whose times are compared, over the sets of some operands. */
interface Contender extends AutoCloseable {
  /** As in the report. */
  String name();

  /**
   * Ways to run a pass over a set of tensors, of which the fastest counts; none if it has no such
   * pass.
   */
  List<Way> ways(Pass pass);

  /** Gradients of gamma and of beta over the whole batch, as the last backward left them. */
  List<double[]> parameterGradients();

  /** The largest error that still is the same computation. */
  double allowedError();

  @Override
  void close();
}
