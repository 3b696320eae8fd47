package io.github.syncbn4j.cli.bench;

/**
 * What was measured of one implementation, and found right.
 *
 * @param copies the median, over the rounds, in copies of x of the same round
 * @param maxError against float64, in parts of the largest value
 */
record Result(
    Problem problem,
    Pass pass,
    BenchJob.Device device,
    int replicas,
    int threads,
    String impl,
    Times times,
    double copies,
    double maxError) {
  private static final double BYTES_PER_MICROSECOND = 1e3;

  boolean isCopy() {
    return impl.equals(Copies.NAME);
  }

  /** Of what has to cross the memory buses of all replicas where nothing stays on chip. */
  double gigabytesPerSecond() {
    long tensors = isCopy() ? 2 : pass.tensors();
    return tensors * problem.bytes() / times.median() / BYTES_PER_MICROSECOND;
  }
}
