package io.github.syncbn4j.cli;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.device.HalfFloats;
import io.github.syncbn4j.state.StoredTensor;
import java.nio.ByteBuffer;

/** The layer's element types as safetensors files hold them. */
final class Dtypes {
  private Dtypes() {}

  /** The format's name, as in {@code F32}. */
  static String stored(DType dtype) {
    return switch (dtype) {
      case FLOAT32 -> "F32";
      case FLOAT16 -> "F16";
      case BFLOAT16 -> "BF16";
      case FLOAT64 -> "F64";
      case BOOL -> "BOOL";
    };
  }

  /** The elements of a floating-point tensor, exactly. */
  static double[] doubles(StoredTensor tensor) {
    double[] values = new double[Math.toIntExact(tensor.elements())];
    ByteBuffer data = tensor.data();
    for (int i = 0; i < values.length; i++) {
      values[i] =
          switch (tensor.dtype()) {
            case "F64" -> data.getDouble();
            case "F32" -> data.getFloat();
            case "F16" -> HalfFloats.fromFloat16(data.getShort());
            case "BF16" -> HalfFloats.fromBfloat16(data.getShort());
            default -> throw new IllegalArgumentException("no numbers: " + tensor);
          };
    }
    return values;
  }
}
