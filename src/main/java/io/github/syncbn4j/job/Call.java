package io.github.syncbn4j.job;

import java.util.List;

/**
 * A call that all ranks have to make together: what must be the same on all of them.
 *
 * @param what a {@link Signature}, {@link #collective} for tensors, or one of the calls below
 * @param size channels of the layer, or elements of the tensor
 * @param type {@code syncbn_dtype} of the layer or tensor; {@link #COUNTED} is added where rows
 *     have a count for each channel
 */
public record Call(long what, long size, int type) {
  /** Added to the type. */
  public static final int COUNTED = 1 << 8;

  /** NCCL connects all ranks. */
  public static final Call CONNECT = new Call(0, 0, 0);

  /** NCCL makes smaller groups of the ranks. */
  public static final Call SPLIT = new Call(Long.MIN_VALUE, 0, 0);

  private static final List<String> TYPES = List.of("float32", "float16", "bfloat16", "float64");

  /** What a collective over tensors is: a sum if {@code root} is -1, or a broadcast. */
  public static long collective(int root) {
    return -2L - root;
  }

  /** As in {@code layer 3, forward of step 5, 64 channels of float32}. */
  @Override
  public String toString() {
    if (what == CONNECT.what) {
      return "connecting to all ranks";
    }
    if (what == SPLIT.what) {
      return "splitting the group";
    }
    int code = type & COUNTED - 1;
    String typeName = code < TYPES.size() ? TYPES.get(code) : "bool";
    if (what == collective(-1)) {
      return "sum of %d %s".formatted(size, typeName);
    }
    if (what < 0) {
      return "broadcast of %d %s from rank %d".formatted(size, typeName, -2 - what);
    }
    return "%s, %d channels of %s%s"
        .formatted(
            Signature.describe(what),
            size,
            typeName,
            (type & COUNTED) == 0 ? "" : ", counted one by one");
  }
}
