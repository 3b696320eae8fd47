package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.StringTensorDict;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.Layout;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * Keeps one replica's copy of a network the same as all others': they start with the values of one,
 * and each step sums or averages their gradients. Used by the replica's thread; all replicas' have
 * to make the same calls.
 *
 * <pre>{@code
 * DataParallel parallel = new DataParallel(replica, network);   // with rank 0's values
 * ...
 * loss.backward();                                              // of the replica's own examples
 * parallel.averageGradients();
 * optimizer.step();                                             // the same on every replica
 * }</pre>
 *
 * <p>It knows the parameters that the network had when it was made: one that gets others, such as a
 * new last layer, needs another. A parameter is frozen and thawed on all replicas alike.
 *
 * <p>Everything of one type is exchanged as one tensor, on libtorch's current stream where the
 * network is on a GPU. A network on the CPU with a replica on a GPU is copied there and back.
 *
 * <p>Source: PyTorch's {@code torch.nn.parallel.DistributedDataParallel}.
 */
public final class DataParallel {
  private static final Set<ScalarType> SUMMED =
      EnumSet.of(ScalarType.Float, ScalarType.Double, ScalarType.Half, ScalarType.BFloat16);

  private final Replica replica;
  private final Map<String, Tensor> parameters;
  private final Map<String, Tensor> buffers;

  /** Whether the network is on the CPU and the replica is not. */
  private final boolean copied;

  /**
   * Gives every replica the parameters and buffers of rank 0.
   *
   * @param network on the replica's device or on the CPU; with the same parameters and buffers on
   *     every replica
   * @throws IllegalArgumentException with the name of what is elsewhere, or is not dense; if rank 0
   *     has other names, types or shapes
   */
  public DataParallel(Replica replica, Module network) {
    this.replica = replica;
    this.parameters = tensors(network.named_parameters());
    this.buffers = tensors(network.named_buffers());
    List<Tensor> all = new ArrayList<>(parameters.values());
    all.addAll(buffers.values());
    String device = all.isEmpty() ? Tensors.libtorchDevice(replica) : Tensors.device(all.get(0));
    this.copied = !device.equals(Tensors.device(replica));
    parameters.forEach((name, tensor) -> requireDense(name, tensor, device));
    buffers.forEach((name, tensor) -> requireDense(name, tensor, device));
    requireSameAsRankZero(device);
    broadcast(all);
  }

  /** libtorch's device for a replica: its GPU, or the CPU if this libtorch has no GPUs. */
  public static Device device(Replica replica) {
    return new Device(Tensors.libtorchDevice(replica));
  }

  private static Map<String, Tensor> tensors(StringTensorDict named) {
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    for (long i = 0; i < named.size(); i++) {
      // A handle that lives beyond the dictionary and any scope.
      tensors.put(
          named.get(i).key().getString(), new Tensor(named.get(i).value()).retainReference());
    }
    return tensors;
  }

  private void requireDense(String name, Tensor tensor, String device) {
    if (tensor.layout().intern() != Layout.Strided) {
      throw new IllegalArgumentException(
          "%s is %s, not a dense tensor".formatted(name, tensor.layout().intern()));
    }
    if (!Tensors.device(tensor).equals(device) || copied && !device.equals("cpu")) {
      throw new IllegalArgumentException(
          "%s is %s, %s needs all of its network on %s or the CPU"
              .formatted(name, Tensors.describe(tensor), replica, Tensors.device(replica)));
    }
  }

  /** What is exchanged has no names: values would end in other tensors of as many bytes. */
  @SuppressWarnings("try")
  private void requireSameAsRankZero(String device) {
    String here = describe(parameters) + "; " + describe(buffers);
    UUID id = UUID.nameUUIDFromBytes(here.getBytes(StandardCharsets.UTF_8));
    try (PointerScope scope = new PointerScope()) {
      long[] bits = {id.getMostSignificantBits(), id.getLeastSignificantBits()};
      Tensor mine = Tensor.create(bits).to(new Device(device), ScalarType.Long);
      Tensor ofRankZero = mine.clone();
      broadcast(List.of(ofRankZero));
      if (!ofRankZero.equal(mine)) {
        throw new IllegalArgumentException(
            "rank %d has other parameters or buffers than rank 0, or in another order: %s"
                .formatted(replica.rank(), here));
      }
    }
  }

  private static String describe(Map<String, Tensor> tensors) {
    return tensors.entrySet().stream()
        .map(
            entry ->
                "%s %s%s"
                    .formatted(
                        entry.getKey(),
                        entry.getValue().scalar_type().intern(),
                        Arrays.toString(entry.getValue().shape())))
        .collect(Collectors.joining(", "));
  }

  /** Bytes, so that every type goes, counts too. */
  @SuppressWarnings("try")
  private void broadcast(List<Tensor> tensors) {
    if (replica.group().size() == 1 || tensors.isEmpty()) {
      return;
    }
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      TensorVector parts = new TensorVector();
      for (Tensor tensor : tensors) {
        parts.push_back(tensor.contiguous().flatten().view(ScalarType.Byte));
      }
      Tensor bytes = torch.cat(parts);
      exchange(bytes, DType.BOOL, there -> replica.broadcast(there, 0));
      long begin = 0;
      for (Tensor tensor : tensors) {
        // A copy, since a view of another type has to begin at a whole element.
        Tensor values = bytes.narrow(0, begin, tensor.nbytes()).clone().view(tensor.scalar_type());
        tensor.copy_(values.view_as(tensor));
        begin += tensor.nbytes();
      }
    }
  }

  /**
   * Every replica's gradients become the sum of all replicas'. That is the gradient over all
   * examples if each loss is a sum over its own, or a mean that is already weighted.
   *
   * <p>Parameters that need no gradient are left out. One that has none yet on some replica counts
   * as zero there and gets the sum; where it has one on no replica it stays so. Telling these apart
   * is the one thing that waits for the GPU, on replicas that lack a gradient.
   *
   * @throws IllegalArgumentException with the name of a gradient that is sparse or of a type that
   *     is not summed, before anything is exchanged
   */
  public void sumGradients() {
    reduceGradients(1);
  }

  /**
   * As {@link #sumGradients}, divided by the number of replicas: the gradient of the mean over all
   * examples if each loss is the mean over its own, and every replica has as many.
   */
  public void averageGradients() {
    reduceGradients(replica.group().size());
  }

  private void reduceGradients(int divisor) {
    Map<ScalarType, List<Tensor>> byType = new LinkedHashMap<>();
    parameters.forEach(
        (name, parameter) -> {
          if (parameter.requires_grad()) {
            requireSummable(name, parameter);
            byType
                .computeIfAbsent(parameter.scalar_type().intern(), t -> new ArrayList<>())
                .add(parameter);
          }
        });
    if (replica.group().size() > 1) {
      byType.forEach((type, ofType) -> reduceGradients(type, ofType, divisor));
    }
  }

  /** The gradients of one type, and behind them a number for each: above 0 if a replica has it. */
  @SuppressWarnings("try")
  private void reduceGradients(ScalarType type, List<Tensor> ofType, int divisor) {
    try (PointerScope scope = new PointerScope();
        NoGradGuard noGrad = new NoGradGuard()) {
      TensorVector parts = new TensorVector();
      float[] has = new float[ofType.size()];
      boolean hasAll = true;
      for (int i = 0; i < has.length; i++) {
        Tensor gradient = ofType.get(i).grad();
        has[i] = gradient.defined() ? 1 : 0;
        hasAll &= gradient.defined();
        parts.push_back(
            (gradient.defined() ? gradient : torch.zeros_like(ofType.get(i))).flatten());
      }
      TensorOptions options = ofType.get(0).options();
      parts.push_back(
          hasAll
              ? torch.ones(new long[] {has.length}, options) // without a copy, which would wait
              : Tensor.create(has).to(ofType.get(0).device(), type));
      Tensor flat = torch.cat(parts);
      if (divisor > 1) {
        // Before they are summed, so that the sum of Half gradients is not beyond its range.
        flat.div_(new Scalar((double) divisor));
      }
      exchange(flat, Tensors.dtype(type), replica::allReduce);
      Tensor owners = flat.narrow(0, flat.numel() - has.length, has.length);
      long begin = 0;
      for (int i = 0; i < has.length; i++) {
        Tensor parameter = ofType.get(i);
        Tensor sum = flat.narrow(0, begin, parameter.numel()).view_as(parameter);
        if (has[i] > 0) {
          parameter.grad().copy_(sum);
        } else if (owners.select(0, i).item_double() > 0) {
          parameter.mutable_grad().put(sum.clone());
        }
        begin += parameter.numel();
      }
    }
  }

  private static void requireSummable(String name, Tensor parameter) {
    ScalarType type = parameter.scalar_type().intern();
    if (!SUMMED.contains(type)) {
      throw new IllegalArgumentException(
          "%s is %s: gradients are summed in Float, Double, Half and BFloat16"
              .formatted(name, type));
    }
    Tensor gradient = parameter.grad();
    if (!gradient.defined()) {
      return;
    }
    if (gradient.layout().intern() != Layout.Strided) {
      throw new IllegalArgumentException(
          "the gradient of %s is %s: dense gradients are summed"
              .formatted(name, gradient.layout().intern()));
    }
    if (gradient.scalar_type().intern() != type) {
      throw new IllegalArgumentException(
          "the gradient of %s is %s, the parameter %s"
              .formatted(name, gradient.scalar_type().intern(), type));
    }
  }

  private void exchange(Tensor flat, DType dtype, Consumer<DeviceTensor> collective) {
    CurrentStream.use(replica, flat);
    try (Lent lent = Lent.inPlace(replica, flat, dtype, copied)) {
      collective.accept(lent.tensor());
      lent.fetch();
    }
  }
}
