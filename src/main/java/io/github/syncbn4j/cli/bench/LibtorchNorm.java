package io.github.syncbn4j.cli.bench;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.device.Address;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.BoolPointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.T_TensorTensorTensor_T;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * libtorch's {@code native_batch_norm} and its backward, on the same tensors: parameters and
 * statistics in float32, outputs allocated before.
 *
 * <p>Its backward into outputs that are there computes new ones and copies; the one that returns
 * new ones is timed too, and the faster of the two counts. Those stay until their set's turn comes
 * again: memory that is freed at once would be in the cache for the next.
 */
final class LibtorchNorm implements Contender {
  private static final double MOMENTUM = 0.01;

  /** Of x, weight and bias. */
  private static final int GRADIENTS = 3;

  private final Operands operands;
  private final List<Pointer> owned = new ArrayList<>();
  private final Tensor gamma;
  private final TensorOptional ofGamma;
  private final TensorOptional ofBeta;
  private final Tensor movingMean;
  private final Tensor movingVariance;
  private final TensorOptional ofMovingMean;
  private final TensorOptional ofMovingVariance;
  private final Tensor mean;
  private final Tensor inverse;
  private final TensorOptional ofMean;
  private final TensorOptional ofInverse;
  private final Tensor dgamma;
  private final Tensor dbeta;
  private final BoolPointer allGradients;

  /** New ones, by their set. */
  private final Map<Integer, T_TensorTensorTensor_T> gradients = new HashMap<>();

  LibtorchNorm(Operands operands) {
    this.operands = operands;
    torch.set_num_threads(operands.place.threads());
    gamma = vector(operands.gamma);
    ofGamma = own(new TensorOptional(gamma));
    ofBeta = own(new TensorOptional(vector(operands.beta)));
    movingMean = vector(operands.movingMean);
    movingVariance = vector(operands.movingVariance);
    ofMovingMean = own(new TensorOptional(movingMean));
    ofMovingVariance = own(new TensorOptional(movingVariance));
    float[] zeros = new float[operands.problem.channels()];
    mean = vector(zeros);
    inverse = vector(zeros);
    ofMean = own(new TensorOptional(mean));
    ofInverse = own(new TensorOptional(inverse));
    dgamma = vector(zeros);
    dbeta = vector(zeros);
    allGradients = own(new BoolPointer(GRADIENTS));
    for (int i = 0; i < GRADIENTS; i++) {
      allGradients.put(i, true);
    }
  }

  private <P extends Pointer> P own(P pointer) {
    owned.add(pointer);
    return pointer;
  }

  private Tensor vector(float[] values) {
    return own(Tensor.create(values));
  }

  private List<Tensor> tensors(Operands.Addresses addresses) {
    ScalarType type =
        switch (operands.problem.dtype()) {
          case FLOAT16 -> ScalarType.Half;
          case BFLOAT16 -> ScalarType.BFloat16;
          default -> ScalarType.Float;
        };
    List<Tensor> tensors = new ArrayList<>();
    try (TensorOptions options = new TensorOptions(type)) {
      for (int set = 0; set < operands.sets; set++) {
        tensors.add(
            own(
                torch.from_blob(
                    new Address(addresses.of(0, set)),
                    operands.problem.logicalShape(),
                    operands.problem.logicalStrides(),
                    options)));
      }
    }
    return tensors;
  }

  @Override
  public String name() {
    return Peer.LIBTORCH.text();
  }

  @Override
  public List<Way> ways(Pass pass) {
    closeGradients();
    if (operands.problem.dtype() == DType.FLOAT64) {
      return List.of();
    }
    List<Tensor> x = tensors(operands::x);
    List<Tensor> dy = tensors(operands::dy);
    List<Tensor> out = tensors(operands::out);
    set(movingMean, operands.movingMean);
    set(movingVariance, operands.movingVariance);
    boolean adds = pass.addsAndRectifies();
    List<Tensor> residual = adds ? tensors(operands::residual) : null;
    if (!pass.isBackward()) {
      return List.of(
          new Way(
              set -> {
                forward(x.get(set), out.get(set), !pass.isInference());
                if (adds) {
                  addAndRectify(out.get(set), residual.get(set));
                }
              }));
    }
    forward(x.get(0), out.get(0), true);
    if (adds) {
      addAndRectify(out.get(0), residual.get(0));
      return List.of(backwardThroughRelu(x, dy, out));
    }
    return List.of(
        new Way(set -> backwardInto(dy.get(set), x.get(set), out.get(set)).close()),
        new Way(
            set -> renewGradients(set, dy.get(set), x.get(set)),
            set -> {
              renewGradients(set, dy.get(set), x.get(set));
              try (Tensor dx = gradients.get(set).get0();
                  Tensor ofGamma = gradients.get(set).get1();
                  Tensor ofBeta = gradients.get(set).get2()) {
                out.get(set).copy_(dx);
                dgamma.copy_(ofGamma);
                dbeta.copy_(ofBeta);
              }
            }));
  }

  private void renewGradients(int set, Tensor dy, Tensor x) {
    T_TensorTensorTensor_T old = gradients.remove(set);
    if (old != null) {
      old.close();
    }
    gradients.put(set, backward(dy, x));
  }

  /** As a network does it: each a call of its own, in place. */
  private static void addAndRectify(Tensor y, Tensor residual) {
    y.add_(residual); // these return their own y
    torch.relu_(y);
  }

  /**
   * @param out the y of a forward in the first
   */
  private Way backwardThroughRelu(List<Tensor> x, List<Tensor> dy, List<Tensor> out) {
    List<Tensor> dresidual = tensors(operands::dresidual);
    // dx goes where y was.
    List<Tensor> y = new ArrayList<>();
    for (int set = 0; set < operands.sets; set++) {
      y.add(own(out.get(0).clone()));
    }
    Scalar zero = own(new Scalar(0));
    return new Way(
        set -> {
          torch.threshold_backward_outf(dy.get(set), y.get(set), zero, dresidual.get(set));
          backwardInto(dresidual.get(set), x.get(set), out.get(set)).close();
        });
  }

  @Override
  public List<double[]> parameterGradients() {
    return List.of(values(dgamma), values(dbeta));
  }

  private double[] values(Tensor vector) {
    FloatPointer values = vector.data_ptr_float();
    return IntStream.range(0, operands.problem.channels()).mapToDouble(values::get).toArray();
  }

  private void set(Tensor vector, float[] values) {
    try (Tensor from = Tensor.create(values)) {
      vector.copy_(from); // returns its own vector
    }
  }

  private T_TensorTensorTensor_T backwardInto(Tensor dy, Tensor x, Tensor dx) {
    return torch.native_batch_norm_backward_outf(
        dy,
        x,
        ofGamma,
        ofMovingMean,
        ofMovingVariance,
        ofMean,
        ofInverse,
        true,
        Reference.EPSILON,
        allGradients,
        dx,
        dgamma,
        dbeta);
  }

  private T_TensorTensorTensor_T backward(Tensor dy, Tensor x) {
    return torch.native_batch_norm_backward(
        dy,
        x,
        ofGamma,
        ofMovingMean,
        ofMovingVariance,
        ofMean,
        ofInverse,
        true,
        Reference.EPSILON,
        allGradients);
  }

  private void forward(Tensor x, Tensor y, boolean training) {
    torch
        .native_batch_norm_outf(
            x,
            ofGamma,
            ofBeta,
            ofMovingMean,
            ofMovingVariance,
            training,
            MOMENTUM,
            Reference.EPSILON,
            y,
            mean,
            inverse)
        .close();
  }

  @Override
  public double allowedError() {
    return Peer.ALLOWED_ERROR + operands.rounding();
  }

  private void closeGradients() {
    gradients.values().forEach(Pointer::close);
    gradients.clear();
  }

  @Override
  public void close() {
    closeGradients();
    owned.forEach(Pointer::close);
    owned.clear();
  }
}
