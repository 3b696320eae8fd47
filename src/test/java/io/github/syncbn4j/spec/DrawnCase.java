package io.github.syncbn4j.spec;

import io.github.syncbn4j.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;

/**
 * A layer and the steps that it takes, all drawn from a seed. The numbers are such that rounding
 * them to the tensors' dtype changes none.
 */
final class DrawnCase {
  private static final int MOST_RANK = 6;
  private static final int MOST_ELEMENTS = 1200;
  private static final int MOST_STEPS = 3;

  /**
   * Of the largest, a ReLU's input that could round to either side of 0; its upstream gradient is
   * then 0.
   */
  private static final double UNDECIDED = 1e-3;

  /** 16-bit numbers are multiples of this, of at most 8 digits. */
  private static final double GRID = 1 / 32.0;

  private static final double GRID_END = 255 * GRID;

  private final Random random;
  final long seed;
  final int replicas;
  final DType dtype;
  final Options options = new Options();

  /** Of the inputs; -1 for the dimension along which they are split. */
  final long[] shape;

  final int channels;
  final boolean trainable;
  final Map<String, double[]> initial = new LinkedHashMap<>();
  final List<Step> steps = new ArrayList<>();

  /** By {@link PlainLayer}, of each step. */
  final List<Map<String, PlainLayer.Result>> results = new ArrayList<>();

  final long countedSteps;

  DrawnCase(long seed, int replicas) {
    this.seed = seed;
    this.replicas = replicas;
    this.random = new Random(seed);
    random.nextInt(); // the first numbers of neighbouring seeds are alike
    dtype = oneOf(DType.FLOAT32, DType.FLOAT32, DType.FLOAT64, DType.FLOAT16, DType.BFLOAT16);
    shape = new long[1 + random.nextInt(MOST_RANK)];
    drawAxes();
    drawOptions();
    trainable = random.nextInt(10) != 0;
    channels = drawShape();
    PlainLayer plain = new PlainLayer(options, channels, replicas);
    plain.trainable = trainable;
    plain.variables.forEach((name, values) -> initial.put(name, drawVariable(name)));
    plain.variables.putAll(initial);
    initial.replaceAll((name, values) -> values.clone());
    int count = 1 + random.nextInt(MOST_STEPS);
    for (int i = 0; i < count; i++) {
      Step step = drawStep();
      steps.add(step);
      if (step.dy != null && options.relu) {
        silenceUndecided(step, plain);
      }
      results.add(plain.step(step));
    }
    countedSteps = plain.countedSteps;
  }

  @SafeVarargs
  private <T> T oneOf(T... choices) {
    return choices[random.nextInt(choices.length)];
  }

  // ------------------------------------------------------------------------------------------------- the layer

  private void drawAxes() {
    int rank = shape.length;
    if (rank > 1 && random.nextInt(3) == 0) {
      int most = Math.min(rank, 3);
      options.axis =
          random
              .ints(0, rank)
              .distinct()
              .limit(2 + (most > 2 ? random.nextInt(most - 1) : 0))
              .toArray();
    } else {
      options.axis = new int[] {rank == 1 ? 0 : oneOf(rank - 1, 1, random.nextInt(rank))};
    }
    for (int i = 0; i < options.axis.length; i++) {
      options.axis[i] -= random.nextBoolean() ? rank : 0;
    }
  }

  private boolean isAxis(int dimension) {
    return Arrays.stream(options.axis).anyMatch(a -> Math.floorMod(a, shape.length) == dimension);
  }

  private void drawOptions() {
    options.momentum = oneOf(0.0, 0.5, 0.9, 0.99, 1.0);
    options.cumulative = random.nextInt(6) == 0;
    options.epsilon = oneOf(1e-3, 1e-3, 1e-5, 0.1);
    options.center = random.nextInt(4) != 0;
    options.scale = random.nextInt(4) != 0;
    options.relu = random.nextInt(3) == 0;
    options.unbiased = random.nextInt(4) == 0;
    options.adjusted = random.nextInt(4) == 0;
    options.renorm = random.nextInt(3) == 0;
    options.unbiased &= !options.renorm; // refused together
    if (options.renorm) {
      options.rmin = oneOf(null, 0.5, 0.9);
      options.rmax = oneOf(null, 1.1, 3.0);
      options.dmax = oneOf(null, 0.1, 2.0);
      options.renormMomentum = oneOf(0.0, 0.8, 0.99);
    }
  }

  /** Draws sizes of all dimensions but the one that is split, and returns the channels. */
  private int drawShape() {
    int split = splitDimension();
    int channelCount = 1;
    int elements = 1;
    for (int k = 0; k < shape.length; k++) {
      if (k == split) {
        shape[k] = -1;
        continue;
      }
      int room = Math.max(1, MOST_ELEMENTS / 8 / elements);
      shape[k] = 1 + random.nextInt(Math.min(room, oneOf(2, 5, 9, 40)));
      elements *= (int) shape[k];
      channelCount *= isAxis(k) ? (int) shape[k] : 1;
    }
    return channelCount;
  }

  /** The first dimension that indexes no channels; -1 if there is none. */
  private int splitDimension() {
    return IntStream.range(0, shape.length).filter(k -> !isAxis(k)).findFirst().orElse(-1);
  }

  private double[] drawVariable(String name) {
    double[] values = new double[channels];
    for (int c = 0; c < channels; c++) {
      double gaussian = random.nextGaussian();
      double value =
          switch (name) {
            case "gamma" -> 1 + 0.3 * gaussian;
            case "moving_variance", "moving_stddev", "renorm_stddev" ->
                oneOf(1.0, 1.0, 1.0, 0.01) * (0.3 + Math.abs(gaussian));
            default -> gaussian;
          };
      values[c] = dtype == DType.FLOAT64 ? value : (float) value;
    }
    return values;
  }

  // ------------------------------------------------------------------------------------------------- a step

  private Step drawStep() {
    boolean training = random.nextInt(4) != 0;
    List<long[]> shapes = drawSplit();
    double offset = oneOf(0.0, 0.0, 3.0, -1.0);
    double spread = oneOf(1.0, 1.0, 0.25);
    Step step = new Step(training, tensors(shapes, offset, spread));
    if (random.nextInt(3) == 0) {
      step.residual = tensors(shapes, 0, 1);
    }
    if (options.adjusted) {
      step.adjustScale = factors(shapes, 1);
      step.adjustBias = factors(shapes, 0);
    }
    if (random.nextInt(4) != 0) {
      step.dy = tensors(shapes, 0, 1);
    }
    if (random.nextInt(4) == 0) {
      boolean sameCounts = options.axis.length == 1 && isAxis(shape.length - 1);
      step.mask = new ArrayList<>();
      for (long[] own : shapes) {
        step.mask.add(sameCounts && random.nextInt(4) == 0 ? null : mask(own));
      }
      spoilSomeOfTheMasked(step);
    }
    step.recompute = random.nextInt(4) == 0;
    step.inPlace = !step.recompute && random.nextInt(4) == 0;
    return step;
  }

  /** Every replica has a share along the split dimension, which may be nothing. */
  private List<long[]> drawSplit() {
    int split = splitDimension();
    if (split < 0) {
      return IntStream.range(0, replicas).mapToObj(rank -> shape.clone()).toList();
    }
    long others = Arrays.stream(shape).filter(size -> size != -1).reduce(1, (a, b) -> a * b);
    int most = (int) Math.max(1, Math.min(60, MOST_ELEMENTS / others / replicas));
    List<long[]> shapes = new ArrayList<>();
    for (int rank = 0; rank < replicas; rank++) {
      long[] own = shape.clone();
      own[split] = random.nextInt(5) == 0 ? 0 : 1 + random.nextInt(most);
      shapes.add(own);
    }
    return shapes;
  }

  private List<Values> tensors(List<long[]> shapes, double offset, double spread) {
    return shapes.stream()
        .map(own -> Values.of(k -> rounded(offset + spread * random.nextGaussian()), own))
        .toList();
  }

  private double rounded(double value) {
    return switch (dtype) {
      case FLOAT64 -> value;
      case FLOAT32 -> (float) value;
      default -> Math.max(-GRID_END, Math.min(GRID_END, Math.rint(value / GRID) * GRID));
    };
  }

  /** For some cases a factor a channel, for others one an element, or something between. */
  private List<Values> factors(List<long[]> shapes, double around) {
    boolean[] repeated = new boolean[shape.length];
    for (int k = 0; k < repeated.length; k++) {
      repeated[k] = !isAxis(k) && random.nextBoolean();
    }
    List<Values> factors = new ArrayList<>();
    for (long[] own : shapes) {
      long[] factorShape = own.clone();
      for (int k = 0; k < repeated.length; k++) {
        factorShape[k] = repeated[k] ? 1 : own[k];
      }
      factors.add(Values.of(k -> (float) (around + 0.2 * random.nextGaussian()), factorShape));
    }
    return factors;
  }

  private Values mask(long[] own) {
    long[] maskShape = Arrays.copyOf(own, own.length - 1);
    int dense = random.nextInt(4); // 0: nothing counts
    return Values.of(k -> random.nextInt(3) < dense ? 1 : 0, maskShape);
  }

  /** What does not count reaches nothing else, not even if it is NaN. */
  private void spoilSomeOfTheMasked(Step step) {
    if (!step.training || !trainable || step.dy == null) {
      return;
    }
    for (int rank = 0; rank < replicas; rank++) {
      if (step.mask.get(rank) == null) {
        continue;
      }
      long[] own = step.x.get(rank).shape();
      double[] mask = step.mask.get(rank).data();
      for (int i = 0; i < step.x.get(rank).data().length; i++) {
        if (mask[i / (int) own[own.length - 1]] == 0 && random.nextInt(4) == 0) {
          step.x.get(rank).data()[i] = Double.NaN;
          step.dy.get(rank).data()[i] = 0;
        }
      }
    }
  }

  private void silenceUndecided(Step step, PlainLayer plain) {
    for (int rank = 0; rank < replicas; rank++) {
      double[] v = plain.beforeRelu(step, rank);
      double largest =
          Arrays.stream(v).map(Math::abs).filter(a -> !Double.isNaN(a)).max().orElse(0);
      for (int i = 0; i < v.length; i++) {
        if (Math.abs(v[i]) < UNDECIDED * Math.max(1, largest)) {
          step.dy.get(rank).data()[i] = 0;
        }
      }
    }
  }

  @Override
  public String toString() {
    StringBuilder text =
        new StringBuilder(
            "seed %d, %d replica(s), %s, input shape %s, %strainable, %s"
                .formatted(
                    seed,
                    replicas,
                    dtype,
                    Arrays.toString(shape),
                    trainable ? "" : "not ",
                    options));
    for (int i = 0; i < steps.size(); i++) {
      List<String> shapes = steps.get(i).x.stream().map(x -> Arrays.toString(x.shape())).toList();
      text.append("%n  step %d: %s, x %s".formatted(i, steps.get(i), shapes));
    }
    return text.toString();
  }
}
