package io.github.syncbn4j;

import io.github.syncbn4j.nn.Constraint;
import io.github.syncbn4j.nn.Initializer;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizer;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * What a layer can be built with: each option's name, default and limits, and which of them go
 * together.
 */
abstract sealed class LayerOptions permits SyncBatchNormalization.Builder {
  private static final long MOST_CHANNELS = 1 << 28;
  private static final AtomicInteger NAMES = new AtomicInteger();

  private long channels;
  private String name;
  boolean trainable = true;
  private DType dtype = DType.FLOAT32;
  private int[] axis = {-1};
  private double momentum = 0.99;
  private boolean cumulative;
  private double epsilon = 1e-3;
  private boolean center = true;
  private boolean scale = true;
  private Initializer betaInitializer = Initializers.zeros();
  private Initializer gammaInitializer = Initializers.ones();
  private Initializer movingMeanInitializer = Initializers.zeros();
  private Initializer movingVarianceInitializer = Initializers.ones();
  private Regularizer betaRegularizer;
  private Regularizer gammaRegularizer;
  private Constraint betaConstraint;
  private Constraint gammaConstraint;
  private boolean renorm;
  private RenormClipping clipping = RenormClipping.NONE;
  private double renormMomentum = 0.99;
  private boolean unbiased;
  private boolean relu;
  private Adjustment adjustment;
  private long[] batchInputShape;

  /** Null for the initializers' values. */
  List<double[]> weights;

  /** Null for memory of the layer's own. */
  StateMemory memory;

  /**
   * Sets the options that a configuration has, Keras' or {@link
   * SyncBatchNormalization#getConfig}'s.
   *
   * @param json an object with the keys of Keras' {@code get_config}
   * @throws IllegalArgumentException for text that is no JSON object, a key that is not known, and
   *     a value that makes no sense
   */
  public SyncBatchNormalization.Builder config(String json) {
    KerasConfig.read(json, builder());
    return builder();
  }

  /**
   * Default: {@code sync_batch_normalization}, from the second in this process on with a number.
   */
  public SyncBatchNormalization.Builder name(String name) {
    this.name = Objects.requireNonNull(name, "name");
    return builder();
  }

  /** See {@link SyncBatchNormalization#setTrainable}. Default true. */
  public SyncBatchNormalization.Builder trainable(boolean trainable) {
    this.trainable = trainable;
    return builder();
  }

  /** Of the tensors that it normalizes. Default float32. */
  public SyncBatchNormalization.Builder dtype(DType dtype) {
    if (!dtype.isFloatingPoint()) {
      throw new IllegalArgumentException("dtype must be a floating-point type, not " + dtype);
    }
    this.dtype = dtype;
    return builder();
  }

  /**
   * The dimensions that index channels; negative ones count from the end. Their order does not
   * matter: channels are numbered with the last dimension fastest. Default -1; 1 for
   * channels-first. Several need {@link SyncBatchNormalization.Builder#build(long...)}.
   */
  public SyncBatchNormalization.Builder axis(int... axis) {
    if (axis.length == 0) {
      throw new IllegalArgumentException("axis must name a dimension, not []");
    }
    this.axis = axis.clone();
    return builder();
  }

  /**
   * Weight of the old value in the moving statistics; PyTorch's momentum is one minus this. Any
   * finite number, as in Keras. Default 0.99.
   */
  public SyncBatchNormalization.Builder momentum(double momentum) {
    requireFinite(momentum, "momentum");
    this.momentum = momentum;
    this.cumulative = false;
    return builder();
  }

  /**
   * Moving statistics are the average of all training steps: PyTorch's {@code momentum=None}. The
   * steps are counted for all channels together: behind masks that leave out a whole channel in
   * some steps, its average is not of those in which it counted alone.
   */
  public SyncBatchNormalization.Builder cumulativeAverage() {
    this.cumulative = true;
    return builder();
  }

  /** Added to the variance under the root; at least 0. Default 0.001. */
  public SyncBatchNormalization.Builder epsilon(double epsilon) {
    requireFinite(epsilon, "epsilon");
    if (epsilon < 0) {
      throw new IllegalArgumentException("epsilon must be at least 0, not " + epsilon);
    }
    this.epsilon = epsilon;
    return builder();
  }

  /** Whether there is an offset beta. Default true. */
  public SyncBatchNormalization.Builder center(boolean center) {
    this.center = center;
    return builder();
  }

  /** Whether there is a scale gamma. Default true. */
  public SyncBatchNormalization.Builder scale(boolean scale) {
    this.scale = scale;
    return builder();
  }

  /** Default zeros. As in Keras, null is {@code glorot_uniform}; so are the three below. */
  public SyncBatchNormalization.Builder betaInitializer(Initializer initializer) {
    this.betaInitializer = initializer;
    return builder();
  }

  /** Default ones. */
  public SyncBatchNormalization.Builder gammaInitializer(Initializer initializer) {
    this.gammaInitializer = initializer;
    return builder();
  }

  /** Default zeros. Also of {@code renorm_mean}. */
  public SyncBatchNormalization.Builder movingMeanInitializer(Initializer initializer) {
    this.movingMeanInitializer = initializer;
    return builder();
  }

  /** Default ones. Its root is where {@code moving_stddev} and {@code renorm_stddev} start. */
  public SyncBatchNormalization.Builder movingVarianceInitializer(Initializer initializer) {
    this.movingVarianceInitializer = initializer;
    return builder();
  }

  /** Default null: none. See {@link SyncBatchNormalization#losses}. */
  public SyncBatchNormalization.Builder betaRegularizer(Regularizer regularizer) {
    this.betaRegularizer = regularizer;
    return builder();
  }

  /** Default null: none. See {@link SyncBatchNormalization#losses}. */
  public SyncBatchNormalization.Builder gammaRegularizer(Regularizer regularizer) {
    this.gammaRegularizer = regularizer;
    return builder();
  }

  /** Default null: none. See {@link SyncBatchNormalization#applyConstraints()}. */
  public SyncBatchNormalization.Builder betaConstraint(Constraint constraint) {
    this.betaConstraint = constraint;
    return builder();
  }

  /** Default null: none. See {@link SyncBatchNormalization#applyConstraints()}. */
  public SyncBatchNormalization.Builder gammaConstraint(Constraint constraint) {
    this.gammaConstraint = constraint;
    return builder();
  }

  /** Batch renormalization (arXiv:1702.03275). Default false. */
  public SyncBatchNormalization.Builder renorm(boolean renorm) {
    this.renorm = renorm;
    return builder();
  }

  /** Limits of renorm's correction. Default {@link RenormClipping#NONE}. */
  public SyncBatchNormalization.Builder renormClipping(RenormClipping clipping) {
    this.clipping = Objects.requireNonNull(clipping, "renorm_clipping");
    return builder();
  }

  /** Weight of the old value in {@code renorm_mean} and {@code renorm_stddev}. Default 0.99. */
  public SyncBatchNormalization.Builder renormMomentum(double renormMomentum) {
    requireFinite(renormMomentum, "renorm_momentum");
    this.renormMomentum = renormMomentum;
    return builder();
  }

  /**
   * Whether the moving variance averages n / (n - 1) times the batch's, as PyTorch's. Default
   * false.
   */
  public SyncBatchNormalization.Builder unbiasedRunningVariance(boolean unbiased) {
    this.unbiased = unbiased;
    return builder();
  }

  /** Whether {@code max(., 0)} follows, after the residual if there is one. Default false. */
  public SyncBatchNormalization.Builder relu(boolean relu) {
    this.relu = relu;
    return builder();
  }

  /** Default null: none. */
  public SyncBatchNormalization.Builder adjustment(Adjustment adjustment) {
    this.adjustment = adjustment;
    return builder();
  }

  /**
   * The shape that {@link SyncBatchNormalization.Builder#build()} builds for: Keras' {@code
   * batch_input_shape}, -1 for a dimension of any size.
   */
  public SyncBatchNormalization.Builder batchInputShape(long... shape) {
    this.batchInputShape = shape.clone();
    return builder();
  }

  /**
   * First values of all variables, in place of the initializers'; see {@link
   * SyncBatchNormalization#setWeights}.
   */
  public SyncBatchNormalization.Builder weights(List<double[]> weights) {
    this.weights = List.copyOf(weights);
    return builder();
  }

  /**
   * Memory of the caller's with the state of every replica, in place of initial values in memory of
   * the layer's own. Default null: none.
   */
  public SyncBatchNormalization.Builder stateMemory(StateMemory memory) {
    this.memory = memory;
    return builder();
  }

  /** In one axis, which the option {@link #axis} names. */
  final void setChannels(long channels) {
    requireChannels(channels);
    this.channels = channels;
  }

  /**
   * The options, for the inputs that they tell of.
   *
   * @throws IllegalStateException if they do not tell the channels
   */
  final LayerConfig layerConfig() {
    if (batchInputShape != null) {
      return layerConfig(batchInputShape);
    }
    if (channels == 0 || axis.length > 1) {
      throw new IllegalStateException(
          "axis %s: build with the shape of the input".formatted(Arrays.toString(axis)));
    }
    return layerConfig(InputSpec.ofChannels(axis[0], channels));
  }

  /** The options, for inputs of this shape. */
  final LayerConfig layerConfig(long[] inputShape) {
    InputSpec input = InputSpec.ofShape(axis, inputShape);
    requireChannels(input.channels());
    if (channels != 0 && channels != input.channels()) {
      throw new IllegalArgumentException(
          "the input of shape %s has %d channels, the builder was given %d"
              .formatted(Arrays.toString(inputShape), input.channels(), channels));
    }
    return layerConfig(input);
  }

  private LayerConfig layerConfig(InputSpec input) {
    if (renorm && unbiased) {
      throw new IllegalArgumentException(
          "renorm keeps moving_stddev, of the biased kind: not with the unbiased variance");
    }
    return new LayerConfig(
        name == null ? nextName() : name,
        dtype,
        input,
        momentum,
        cumulative,
        epsilon,
        center,
        scale,
        new LayerConfig.VariableInitializers(
            betaInitializer, gammaInitializer, movingMeanInitializer, movingVarianceInitializer),
        new LayerConfig.ParameterRegularizers(betaRegularizer, gammaRegularizer),
        new LayerConfig.ParameterConstraints(betaConstraint, gammaConstraint),
        renorm,
        clipping,
        renormMomentum,
        unbiased,
        relu,
        adjustment,
        batchInputShape);
  }

  private SyncBatchNormalization.Builder builder() {
    return (SyncBatchNormalization.Builder) this;
  }

  private static void requireChannels(long channels) {
    if (channels < 1 || channels > MOST_CHANNELS) {
      throw new IllegalArgumentException(
          "channels must be 1 to " + MOST_CHANNELS + ", not " + channels);
    }
  }

  private static String nextName() {
    int number = NAMES.getAndIncrement();
    return "sync_batch_normalization" + (number == 0 ? "" : "_" + number);
  }

  private static void requireFinite(double value, String name) {
    if (!Double.isFinite(value)) {
      throw new IllegalArgumentException(name + " must be finite, not " + value);
    }
  }
}
