package io.github.syncbn4j.device;

/**
 * One replica's part in a collective over a tensor, in place: a sum over all replicas, or the
 * values of one of them.
 *
 * @param address of the first of {@code elements} dense elements
 * @param dtype a {@code syncbn_dtype}; of a broadcast only the size counts
 * @param elementBytes 1, 2, 4 or 8
 * @param root the rank whose values all get, or {@link #SUM}
 */
public record Collective(
    int rank, long address, long elements, int dtype, int elementBytes, int root) {
  /** In place of a root. */
  public static final int SUM = -1;

  public boolean isSum() {
    return root == SUM;
  }

  public long bytes() {
    return elements * elementBytes;
  }

  /** The same call on all replicas, as far as one can tell. */
  public boolean matches(Collective other) {
    return elements == other.elements
        && dtype == other.dtype
        && elementBytes == other.elementBytes
        && root == other.root;
  }

  /** For messages: what rank does. */
  @Override
  public String toString() {
    return "%s of %d elements of %d bytes"
        .formatted(isSum() ? "sum" : "broadcast from rank " + root, elements, elementBytes);
  }
}
