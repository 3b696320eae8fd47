package io.github.syncbn4j.spec;

/**
 * Where an element of x stands, as {@link PlainLayer} counts: its channel, its mask, its factors.
 */
final class PlainPlaces {
  private PlainPlaces() {}

  /** The channel of each element of x: the index within the axes, the last dimension fastest. */
  static int[] channels(Values x, int... axes) {
    int rank = x.shape().length;
    boolean[] isAxis = new boolean[rank];
    for (int axis : axes) {
      isAxis[axis < 0 ? axis + rank : axis] = true;
    }
    int[] channelOf = new int[x.data().length];
    for (int i = 0; i < channelOf.length; i++) {
      int rest = i;
      int stride = 1;
      for (int k = rank - 1; k >= 0; k--) {
        int index = rest % (int) x.shape()[k];
        rest /= (int) x.shape()[k];
        if (isAxis[k]) {
          channelOf[i] += index * stride;
          stride *= (int) x.shape()[k];
        }
      }
    }
    return channelOf;
  }

  /**
   * Whether the mask, if there is one, counts element {@code i}: one value for all channels of a
   * place.
   */
  static boolean counts(Step step, int rank, int i) {
    if (step.mask == null || step.mask.get(rank) == null) {
      return true;
    }
    long[] shape = step.x.get(rank).shape();
    return step.mask.get(rank).data()[i / (int) shape[shape.length - 1]] != 0;
  }

  /**
   * The value that an element {@code i} of {@code shape} meets in a tensor that is broadcast to it.
   */
  static double broadcast(Values values, long[] shape, int i) {
    int at = 0;
    int stride = 1;
    int rest = i;
    for (int k = shape.length - 1; k >= 0; k--) {
      int index = rest % (int) shape[k];
      rest /= (int) shape[k];
      int own = k - (shape.length - values.shape().length);
      if (own >= 0 && values.shape()[own] != 1) {
        at += index * stride;
        stride *= (int) values.shape()[own];
      }
    }
    return values.data()[at];
  }
}
