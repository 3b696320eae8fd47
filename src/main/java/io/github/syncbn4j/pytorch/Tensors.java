package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.Replica;
import java.util.Arrays;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.DeviceOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** Facts about libtorch's tensors. */
final class Tensors {
  private Tensors() {}

  /** Of the first element; 0 if there is none. */
  static long address(Tensor tensor) {
    Pointer pointer = tensor.data_ptr();
    return pointer == null ? 0 : pointer.address();
  }

  static long[] strides(Tensor tensor) {
    long[] strides = new long[(int) tensor.dim()];
    for (int i = 0; i < strides.length; i++) {
      strides[i] = tensor.stride(i);
    }
    return strides;
  }

  /**
   * @throws IllegalArgumentException for a type that is not normalized
   */
  static DType dtype(ScalarType type) {
    return switch (type.intern()) {
      case Float -> DType.FLOAT32;
      case Double -> DType.FLOAT64;
      case Half -> DType.FLOAT16;
      case BFloat16 -> DType.BFLOAT16;
      default ->
          throw new IllegalArgumentException(
              "x must be Float, Double, Half or BFloat16, not " + type.intern());
    };
  }

  static TensorOptions options(String device, ScalarType type) {
    try (TensorOptions options = new TensorOptions(type);
        Device named = new Device(device);
        DeviceOptional optional = new DeviceOptional(named)) {
      return options.device(optional);
    }
  }

  /** libtorch's name of a replica's device: {@code cpu} or {@code cuda:1}. */
  static String device(Replica replica) {
    String id = replica.deviceId();
    return id.startsWith("gpu:") ? id.replace("gpu:", "cuda:") : "cpu";
  }

  /** As {@link #device(Replica)}; the CPU if this libtorch has no GPUs. */
  static String libtorchDevice(Replica replica) {
    return torch.cuda_is_available() ? device(replica) : "cpu";
  }

  /** As in {@code Float[8, 64, 7, 7] on cuda:0}. */
  static String describe(Tensor tensor) {
    return "%s%s on %s"
        .formatted(tensor.scalar_type().intern(), Arrays.toString(tensor.shape()), device(tensor));
  }

  /** As in {@code cpu} or {@code cuda:1}. */
  static String device(Tensor tensor) {
    if (!tensor.is_cuda()) {
      return tensor.is_cpu() ? "cpu" : "another device";
    }
    try (Device device = tensor.device()) {
      return "cuda:" + device.index();
    }
  }
}
