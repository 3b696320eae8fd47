package io.github.syncbn4j.cli.bench;

import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_SCALE;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_SHIFT;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DIFF_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_DST;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_MEAN;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SCALE;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SHIFT;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SRC;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SRC_0;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_SRC_1;
import static org.bytedeco.dnnl.global.dnnl.DNNL_ARG_VARIANCE;
import static org.bytedeco.dnnl.global.dnnl.dnnl_backward;
import static org.bytedeco.dnnl.global.dnnl.dnnl_binary_add;
import static org.bytedeco.dnnl.global.dnnl.dnnl_eltwise_relu;
import static org.bytedeco.dnnl.global.dnnl.dnnl_eltwise_relu_use_dst_for_bwd;
import static org.bytedeco.dnnl.global.dnnl.dnnl_forward_inference;
import static org.bytedeco.dnnl.global.dnnl.dnnl_forward_training;
import static org.bytedeco.dnnl.global.dnnl.dnnl_use_global_stats;
import static org.bytedeco.dnnl.global.dnnl.dnnl_use_scale;
import static org.bytedeco.dnnl.global.dnnl.dnnl_use_shift;

import io.github.syncbn4j.device.Address;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntConsumer;
import java.util.function.IntFunction;
import java.util.stream.IntStream;
import org.bytedeco.dnnl.IntMemoryMap;
import org.bytedeco.dnnl.batch_normalization_backward;
import org.bytedeco.dnnl.batch_normalization_forward;
import org.bytedeco.dnnl.binary;
import org.bytedeco.dnnl.eltwise_backward;
import org.bytedeco.dnnl.eltwise_forward;
import org.bytedeco.dnnl.engine;
import org.bytedeco.dnnl.memory;
import org.bytedeco.dnnl.post_ops;
import org.bytedeco.dnnl.primitive;
import org.bytedeco.dnnl.primitive_attr;
import org.bytedeco.dnnl.stream;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;

/**
 * oneDNN's batch normalization on the same tensors, as far as it has the dtype on this machine.
 *
 * <p>Fused with an addition and ReLU (its flag {@code fuse_norm_add_relu}) it has it on no
 * processor, so those are a primitive of their own, ReLU being a post-op of the addition.
 */
final class OnednnNorm implements Contender {
  private static final int PARAMETERS = dnnl_use_scale | dnnl_use_shift;

  private final Operands operands;
  private final List<Pointer> owned = new ArrayList<>();
  private final engine engine = own(new engine(org.bytedeco.dnnl.engine.kind.cpu, 0));
  private final stream stream = own(new stream(engine));
  private final memory.desc tensor;
  private final memory.desc vector;
  private final memory gamma;
  private final memory beta;
  private final memory mean;
  private final memory variance;
  private final memory dgamma;
  private final memory dbeta;

  OnednnNorm(Operands operands) {
    this.operands = operands;
    Problem problem = operands.problem;
    memory.data_type type =
        switch (problem.dtype()) {
          case FLOAT16 -> memory.data_type.f16;
          case BFLOAT16 -> memory.data_type.bf16;
          default -> memory.data_type.f32;
        };
    tensor = own(new memory.desc(problem.logicalShape(), type, problem.logicalStrides(), false));
    vector =
        own(
            new memory.desc(
                new long[] {problem.channels()}, memory.data_type.f32, memory.format_tag.a));
    float[] zeros = new float[problem.channels()];
    gamma = of(operands.gamma);
    beta = of(operands.beta);
    mean = of(zeros);
    variance = of(zeros);
    dgamma = of(zeros);
    dbeta = of(zeros);
  }

  private <P extends Pointer> P own(P pointer) {
    owned.add(pointer);
    return pointer;
  }

  private memory of(float[] values) {
    return own(new memory(vector, engine, own(new FloatPointer(values))));
  }

  private memory at(long address) {
    return own(new memory(tensor, engine, new Address(address)));
  }

  @Override
  public String name() {
    return Peer.ONEDNN.text();
  }

  @Override
  public List<Way> ways(Pass pass) {
    try {
      IntConsumer call;
      if (pass.isBackward()) {
        call = pass.addsAndRectifies() ? backwardThroughRelu() : backward(operands::dy);
      } else {
        call = forward(pass.isInference());
        call = pass.addsAndRectifies() ? call.andThen(addAndRectify()) : call;
      }
      return List.of(new Way(call));
    } catch (RuntimeException e) {
      // It has no implementation of this dtype for this processor.
      return List.of();
    }
  }

  private IntConsumer forward(boolean inference) {
    int kind = inference ? dnnl_forward_inference : dnnl_forward_training;
    primitive primitive = own(new batch_normalization_forward(description(kind, inference)));
    put(mean, operands.movingMean);
    put(variance, operands.movingVariance);
    return ofSets(
        primitive,
        set ->
            new IntMemoryMap()
                .put(DNNL_ARG_SRC, at(operands.x(0, set)))
                .put(DNNL_ARG_DST, at(operands.out(0, set)))
                .put(DNNL_ARG_MEAN, mean)
                .put(DNNL_ARG_VARIANCE, variance)
                .put(DNNL_ARG_SCALE, gamma)
                .put(DNNL_ARG_SHIFT, beta));
  }

  private IntConsumer ofSets(primitive primitive, IntFunction<IntMemoryMap> arguments) {
    List<IntMemoryMap> ofSets =
        IntStream.range(0, operands.sets).mapToObj(set -> own(arguments.apply(set))).toList();
    return set -> run(primitive, ofSets.get(set));
  }

  /** In place. */
  private IntConsumer addAndRectify() {
    post_ops relu = own(new post_ops());
    relu.append_eltwise(dnnl_eltwise_relu, 0, 0);
    primitive_attr attributes = own(new primitive_attr());
    attributes.set_post_ops(relu);
    primitive primitive =
        own(
            new binary(
                own(
                    new binary.primitive_desc(
                        engine, dnnl_binary_add, tensor, tensor, tensor, attributes, false))));
    return ofSets(
        primitive,
        set ->
            new IntMemoryMap()
                .put(DNNL_ARG_SRC_0, at(operands.out(0, set)))
                .put(DNNL_ARG_SRC_1, at(operands.residual(0, set)))
                .put(DNNL_ARG_DST, at(operands.out(0, set))));
  }

  private IntConsumer backwardThroughRelu() {
    int bytes = Math.toIntExact(operands.problem.bytes());
    // dx goes where y was.
    List<Pointer> y = new ArrayList<>();
    forward(false).andThen(addAndRectify()).accept(0);
    for (int set = 0; set < operands.sets; set++) {
      Pointer own = own(new BytePointer(bytes));
      Pointer.memcpy(own, new Address(operands.out(0, 0)), bytes);
      y.add(own);
    }
    eltwise_forward.primitive_desc forward =
        own(
            new eltwise_forward.primitive_desc(
                engine, dnnl_forward_training, dnnl_eltwise_relu_use_dst_for_bwd, tensor, tensor));
    primitive primitive =
        own(
            new eltwise_backward(
                own(
                    new eltwise_backward.primitive_desc(
                        engine,
                        dnnl_eltwise_relu_use_dst_for_bwd,
                        tensor,
                        tensor,
                        tensor,
                        forward))));
    return ofSets(
            primitive,
            set ->
                new IntMemoryMap()
                    .put(DNNL_ARG_DST, at(y.get(set).address()))
                    .put(DNNL_ARG_DIFF_DST, at(operands.dy(0, set)))
                    .put(DNNL_ARG_DIFF_SRC, at(operands.dresidual(0, set))))
        .andThen(backward(operands::dresidual));
  }

  private static void put(memory vector, float[] values) {
    new FloatPointer(vector.get_data_handle()).put(values);
  }

  private batch_normalization_forward.primitive_desc description(int kind, boolean inference) {
    int flags = inference ? PARAMETERS | dnnl_use_global_stats : PARAMETERS;
    return own(
        new batch_normalization_forward.primitive_desc(
            engine, kind, tensor, tensor, (float) Reference.EPSILON, flags));
  }

  private IntConsumer backward(Operands.Addresses gradient) {
    forward(false).accept(0);
    primitive primitive =
        own(
            new batch_normalization_backward(
                own(
                    new batch_normalization_backward.primitive_desc(
                        engine,
                        dnnl_backward,
                        tensor,
                        tensor,
                        tensor,
                        (float) Reference.EPSILON,
                        PARAMETERS,
                        description(dnnl_forward_training, false)))));
    return ofSets(
        primitive,
        set ->
            new IntMemoryMap()
                .put(DNNL_ARG_SRC, at(operands.x(0, set)))
                .put(DNNL_ARG_DIFF_DST, at(gradient.of(0, set)))
                .put(DNNL_ARG_DIFF_SRC, at(operands.out(0, set)))
                .put(DNNL_ARG_MEAN, mean)
                .put(DNNL_ARG_VARIANCE, variance)
                .put(DNNL_ARG_SCALE, gamma)
                .put(DNNL_ARG_DIFF_SCALE, dgamma)
                .put(DNNL_ARG_DIFF_SHIFT, dbeta));
  }

  @Override
  public List<double[]> parameterGradients() {
    return List.of(values(dgamma), values(dbeta));
  }

  private double[] values(memory vector) {
    FloatPointer values = new FloatPointer(vector.get_data_handle());
    return IntStream.range(0, operands.problem.channels()).mapToDouble(values::get).toArray();
  }

  private void run(primitive primitive, IntMemoryMap arguments) {
    primitive.execute(stream, arguments);
    stream._wait();
  }

  @Override
  public double allowedError() {
    return Peer.ALLOWED_ERROR + operands.rounding();
  }

  /** In reverse, since what is made from something may refer to it. */
  @Override
  public void close() {
    for (int i = owned.size() - 1; i >= 0; i--) {
      owned.get(i).close();
    }
    owned.clear();
  }
}
