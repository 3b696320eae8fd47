package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.LongStream;

/**
 * What a layer is given.
 *
 * @param layer channels and sides, as in {@code 64x56x56}
 * @param spatial sides of the images; none if there are no images but vectors
 * @param cold whether the tensors come from memory each time, not from a cache
 */
record Problem(
    String suite,
    String layer,
    int images,
    int channels,
    List<Integer> spatial,
    boolean channelsLast,
    DType dtype,
    boolean cold,
    List<Pass> passes) {
  private static final int FEW = 4;

  static Problem of(
      Suite suite,
      int images,
      int channels,
      List<Integer> spatial,
      boolean channelsLast,
      DType dtype,
      boolean cold,
      List<Pass> passes) {
    List<Integer> sizes = new ArrayList<>(List.of(channels));
    sizes.addAll(spatial);
    String layer = sizes.stream().map(String::valueOf).collect(Collectors.joining("x"));
    return new Problem(
        suite.name(), layer, images, channels, spatial, channelsLast, dtype, cold, passes);
  }

  /**
   * One like it, of so few elements that simulated GPUs take no time for it, but an image for each
   * of these replicas, if there are as many.
   */
  Problem shrunk(int replicas) {
    return of(
        Suite.valueOf(suite),
        Math.min(images, Math.max(FEW, replicas)),
        Math.min(channels, FEW * FEW),
        spatial.stream().map(side -> Math.min(side, FEW)).toList(),
        channelsLast,
        dtype,
        cold,
        passes);
  }

  /** Elements of an image's channel. */
  int area() {
    return spatial.stream().reduce(1, Math::multiplyExact);
  }

  /** Of the images of one of these shares, and of all that come after. */
  int firstImage(int share, int shares) {
    return Math.toIntExact((long) images * share / shares);
  }

  long elements() {
    return (long) images * channels * area();
  }

  long bytes() {
    return elements() * dtype.bytes();
  }

  /** As the tensors lie in memory. */
  long[] shape() {
    return shape(images);
  }

  long[] shape(long ofImages) {
    List<Long> sizes = new ArrayList<>();
    spatial.forEach(side -> sizes.add((long) side));
    sizes.add(channelsLast ? sizes.size() : 0, (long) channels);
    return LongStream.concat(LongStream.of(ofImages), sizes.stream().mapToLong(Long::longValue))
        .toArray();
  }

  /** The dimension of {@link #shape} that is the channels'. */
  int axis() {
    return channelsLast ? shape().length - 1 : 1;
  }

  /** Images, channels, sides, whatever the layout. */
  long[] logicalShape() {
    List<Long> sizes = new ArrayList<>(List.of((long) images, (long) channels));
    spatial.forEach(side -> sizes.add((long) side));
    return sizes.stream().mapToLong(Long::longValue).toArray();
  }

  /** Of {@link #logicalShape}, in elements. */
  long[] logicalStrides() {
    long[] shape = logicalShape();
    long[] strides = new long[shape.length];
    List<Integer> outermostFirst = new ArrayList<>();
    for (int i = 0; i < shape.length; i++) {
      outermostFirst.add(i);
    }
    if (channelsLast) {
      outermostFirst.add(outermostFirst.remove(1));
    }
    Collections.reverse(outermostFirst);
    long stride = 1;
    for (int dimension : outermostFirst) {
      strides[dimension] = stride;
      stride *= shape[dimension];
    }
    return strides;
  }

  String layout() {
    return channelsLast ? "channels_last" : "channels_first";
  }

  String dtypeText() {
    return dtype.name().toLowerCase(Locale.ROOT);
  }

  @Override
  public String toString() {
    return "%s %s %s %s"
        .formatted(
            Arrays.stream(shape()).mapToObj(String::valueOf).collect(Collectors.joining("x")),
            layout(),
            dtypeText(),
            cold ? "cold" : "warm");
  }
}
