package io.github.syncbn4j.cli.bench;

import java.util.function.IntConsumer;

/**
 * A way to run a pass.
 *
 * @param call this is timed
 * @param checked the same, with the results in the operands' outputs
 */
record Way(Call call, Call checked) {
  /** What a part of the place does with its share of a set of tensors. */
  interface Call {
    void run(int part, int set);
  }

  /** One that writes into the operands' outputs itself. */
  Way(Call call) {
    this(call, call);
  }

  /** Over a set of tensors, for places of one part. */
  Way(IntConsumer call, IntConsumer checked) {
    this((part, set) -> call.accept(set), (part, set) -> checked.accept(set));
  }

  /** As {@link #Way(IntConsumer, IntConsumer)}, of one that writes into the operands' outputs. */
  Way(IntConsumer call) {
    this(call, call);
  }
}
