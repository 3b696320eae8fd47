package io.github.syncbn4j.cli.bench;

import java.util.function.IntConsumer;

/**
 * A way to run a pass.
 *
 * @param call over a set of tensors; this is timed
 * @param checked the same, with the results in the operands' outputs
 */
record Way(IntConsumer call, IntConsumer checked) {
  /** One that writes into the operands' outputs itself. */
  Way(IntConsumer call) {
    this(call, call);
  }
}
