package io.github.syncbn4j.pytorch;

import static io.github.syncbn4j.pytorch.TorchAssertions.assertClose;

import io.github.syncbn4j.ReplicaGroup;
import java.util.List;
import java.util.function.UnaryOperator;
import java.util.stream.LongStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BatchNorm1dImpl;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNorm3dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.StringTensorDict;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.MemoryFormat;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Two steps with a network around a batch norm: of the whole batch with libtorch's own, and of a
 * part of it on each replica with a synchronized one. Outputs, gradients and statistics must agree.
 *
 * @param parts examples of each replica
 * @param example dimensions of one, channels first
 */
record Comparison(
    ScalarType type,
    MemoryFormat format,
    boolean training,
    List<Integer> parts,
    List<Long> example) {
  private static final int STEPS = 2;

  /** What a network does with x and its batch norm. */
  interface Body {
    Tensor forward(UnaryOperator<Tensor> norm, Tensor x);
  }

  static Module plainNorm(int rank, BatchNormOptions options) {
    return switch (rank) {
      case 4 -> new BatchNorm2dImpl(options);
      case 5 -> new BatchNorm3dImpl(options);
      default -> new BatchNorm1dImpl(options);
    };
  }

  static Tensor forward(Module norm, Tensor x) {
    if (norm instanceof BatchNorm1dImpl one) {
      return one.forward(x);
    }
    return norm instanceof BatchNorm2dImpl two
        ? two.forward(x)
        : ((BatchNorm3dImpl) norm).forward(x);
  }

  private int rank() {
    return example.size() + 1;
  }

  private Module norm(BatchNormOptions options) {
    Module norm = plainNorm(rank(), options);
    norm.train(training);
    return norm;
  }

  private Tensor random(long examples) {
    long[] shape =
        LongStream.concat(LongStream.of(examples), example.stream().mapToLong(d -> d)).toArray();
    return torch.randn(shape).to(type).contiguous(format);
  }

  /** With replicas on the CPU. */
  void run(BatchNormOptions options, Body body) {
    run(ReplicaGroup.builder().cpus(parts.size()).threads(1).build(), options, body);
  }

  /** Closes the group. */
  @SuppressWarnings("try")
  void run(ReplicaGroup replicas, BatchNormOptions options, Body body) {
    torch.set_num_threads(1);
    torch.manual_seed(7);
    try (PointerScope scope = new PointerScope();
        ReplicaGroup group = replicas) {
      Module whole = norm(options);
      List<Module> plain = parts.stream().map(part -> norm(options)).toList();
      randomize(whole, plain);
      whole.to(type, false);
      plain.forEach(norm -> norm.to(type, false));
      List<Module> synced = SyncBatchNorms.convert(group, plain);
      for (int step = 0; step < STEPS; step++) {
        step(group, whole, synced, body);
      }
    }
  }

  /** Other than zeros and ones, and the same in all. */
  private static void randomize(Module whole, List<Module> norms) {
    for (StringTensorDict from : List.of(whole.named_parameters(), whole.named_buffers())) {
      for (long i = 0; i < from.size(); i++) {
        Tensor tensor = from.get(i).value().detach();
        if (tensor.is_floating_point()) {
          tensor.copy_(torch.rand(tensor.shape()).add(new Scalar(0.5)));
        }
        String name = from.get(i).key().getString();
        for (Module norm : norms) {
          named(norm, name).detach().copy_(tensor);
        }
      }
    }
  }

  /** A handle of its own: what libtorch's getters return lives no longer than what they are of. */
  static Tensor named(Module module, String name) {
    for (StringTensorDict tensors : List.of(module.named_parameters(), module.named_buffers())) {
      if (tensors.contains(name)) {
        return new Tensor(tensors.get(name));
      }
    }
    throw new IllegalArgumentException(name);
  }

  static Tensor gradient(Module module, String name) {
    return new Tensor(named(module, name).grad());
  }

  private void step(ReplicaGroup group, Module whole, List<Module> synced, Body body) {
    Tensor x = random(parts.stream().mapToInt(p -> p).sum());
    x.requires_grad_(true);
    whole.zero_grad(true);
    Tensor y = body.forward(input -> forward(whole, input), x);
    Tensor dy = torch.randn_like(y);
    y.mul(dy).sum().backward();

    Tensor[] ys = new Tensor[parts.size()];
    Tensor[] dxs = new Tensor[parts.size()];
    Threads.fromEach(
        group,
        replica -> {
          int rank = replica.rank();
          Module norm = synced.get(rank);
          norm.zero_grad(true);
          Tensor mine = part(x.detach(), rank).contiguous(format);
          mine.requires_grad_(true);
          Tensor output = body.forward(input -> forward(norm, input), mine);
          ys[rank] = output.detach();
          output.mul(part(dy, rank)).sum().backward();
          dxs[rank] = new Tensor(mine.grad());
          return null;
        });
    assertClose("y", torch.cat(new TensorVector(ys)), y);
    assertClose("dx", torch.cat(new TensorVector(dxs)), x.grad());
    for (String name : new String[] {"weight", "bias"}) {
      Tensor sum = gradient(synced.get(0), name);
      for (int rank = 1; rank < parts.size(); rank++) {
        sum = sum.add(gradient(synced.get(rank), name));
      }
      assertClose(name + ".grad", sum, gradient(whole, name));
    }
    for (Module norm : synced) {
      for (String name : new String[] {"running_mean", "running_var", "num_batches_tracked"}) {
        assertClose(name, named(norm, name).to(type), named(whole, name).to(type));
      }
    }
  }

  private Tensor part(Tensor tensor, int rank) {
    int before = parts.subList(0, rank).stream().mapToInt(p -> p).sum();
    return tensor.narrow(0, before, parts.get(rank));
  }

  @Override
  public String toString() {
    return "%s%s %s %s over %s"
        .formatted(type, example, format, training ? "train" : "eval", parts);
  }
}
