package io.github.syncbn4j.device;

/**
 * One replica's buffer of rows, float64 {@code [worldSize][length]}: before an exchange its own row
 * is filled and the others are zero.
 *
 * <p>Mutable so that a step allocates nothing: the length differs between forward and backward.
 */
public final class Rows {
  private final int rank;
  private final int worldSize;
  private final Address buffer;
  private long length;

  public Rows(int rank, int worldSize, long address) {
    this.rank = rank;
    this.worldSize = worldSize;
    this.buffer = new Address(address);
  }

  public int rank() {
    return rank;
  }

  /** The buffer as JavaCPP's calls take it; not owned. */
  public Address buffer() {
    return buffer;
  }

  /** Doubles in one row. */
  public long length() {
    return length;
  }

  /** Sets the doubles in one row of the coming exchange. */
  public Rows length(long doubles) {
    this.length = doubles;
    return this;
  }

  /** Doubles in the whole buffer. */
  public long elements() {
    return length * worldSize;
  }
}
