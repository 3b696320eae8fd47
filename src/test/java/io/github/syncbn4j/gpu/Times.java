package io.github.syncbn4j.gpu;

import io.github.syncbn4j.cli.cuda.Cuda;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.IntConsumer;

/** How long work takes on the device, per call: samples by CUDA events, and what became of them. */
record Times(double median, double p10, double p90, int samples, double hostMedian) {
  private static final double MICROSECONDS = 1e3;

  /** Launches before the first sample: the first one loads, and the clocks rise. */
  private static final int WARM_UP = 3;

  /**
   * A graph's, one behind the other, so that no launch is waited for.
   *
   * @param calls how many calls the graph holds
   */
  static Times ofGraph(Cuda.Stream stream, Cuda.Graph graph, int samples, int calls) {
    List<Cuda.Event> events = new ArrayList<>();
    try {
      for (int i = 0; i < WARM_UP; i++) {
        stream.launch(graph);
      }
      for (int i = 0; i <= samples; i++) {
        Cuda.Event event = new Cuda.Event();
        events.add(event);
        stream.record(event);
        if (i < samples) {
          stream.launch(graph);
        }
      }
      stream.synchronize();
      double[] times = new double[samples];
      for (int i = 0; i < samples; i++) {
        times[i] = events.get(i).millisecondsTo(events.get(i + 1)) * MICROSECONDS / calls;
      }
      return of(times, Double.NaN);
    } finally {
      events.forEach(Cuda.Event::close);
    }
  }

  /**
   * Of calls from Java, and how long they take to enqueue.
   *
   * @param calls how many make a sample
   */
  static Times ofCalls(Cuda.Stream stream, int samples, int calls, IntConsumer call) {
    double[] times = new double[samples];
    double[] host = new double[samples];
    try (Cuda.Event begin = new Cuda.Event();
        Cuda.Event end = new Cuda.Event()) {
      int next = 0;
      for (int sample = -WARM_UP; sample < samples; sample++) {
        stream.record(begin);
        long start = System.nanoTime();
        for (int i = 0; i < calls; i++) {
          call.accept(next++);
        }
        long enqueued = System.nanoTime() - start;
        stream.record(end);
        stream.synchronize();
        if (sample >= 0) {
          times[sample] = begin.millisecondsTo(end) * MICROSECONDS / calls;
          host[sample] = enqueued / MICROSECONDS / calls;
        }
      }
    }
    return of(times, percentile(host, 50));
  }

  private static Times of(double[] times, double host) {
    return new Times(
        percentile(times, 50), percentile(times, 10), percentile(times, 90), times.length, host);
  }

  private static double percentile(double[] values, int percent) {
    double[] sorted = values.clone();
    Arrays.sort(sorted);
    double at = (sorted.length - 1) * percent / 100.0;
    int below = (int) at;
    int above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
  }
}
