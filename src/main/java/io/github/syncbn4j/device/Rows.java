package io.github.syncbn4j.device;

import org.bytedeco.javacpp.Pointer;

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
  private final Address row;
  private long length;

  public Rows(int rank, int worldSize, long address) {
    this.rank = rank;
    this.worldSize = worldSize;
    this.buffer = new Address(address);
    this.row = new Address(address);
  }

  public int rank() {
    return rank;
  }

  /** The buffer as JavaCPP's calls take it; not owned. */
  public Address buffer() {
    return buffer;
  }

  /** The row of a rank in the buffer; the same object, until the next call, for every rank. */
  public Pointer row(int ofRank) {
    return row.position(ofRank * bytes());
  }

  /** Bytes of one row. */
  public long bytes() {
    return length * Double.BYTES;
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
