package io.github.syncbn4j.cli.bench;

/** A machine on which no thread ever waits for a processor, but in the first samples it is told. */
final class StillWaits extends Waits {
  private int disturbed;
  private boolean within;
  private long nanos;

  StillWaits(int disturbed) {
    this.disturbed = disturbed;
  }

  /** Asked before and after each sample. */
  @Override
  public long waited() {
    if (within && disturbed > 0) {
      disturbed--;
      nanos += 1_000_000_000_000L;
    }
    within = !within;
    return nanos;
  }

  @Override
  public void settle() {}
}
