package io.github.syncbn4j.cli.train;

import static org.bytedeco.pytorch.global.torch.silu;

import java.util.List;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.Conv2dImpl;
import org.bytedeco.pytorch.Conv2dOptions;
import org.bytedeco.pytorch.LinearImpl;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.Tensor;

/**
 * The network: 8 x 8 pixels, three times convolution, normalization and activation down to 1 x 1,
 * then a linear layer to ten classes.
 *
 * <p>The last normalization sees one value an image and channel, so that it matters most there
 * whose images it sees. The activation is SiLU rather than ReLU because two runs are compared step
 * by step: once in some million activations, rounding puts a ReLU's input on the other side of
 * zero, and the runs part.
 */
final class DigitsNet extends Module {
  static final int[] CHANNELS = {16, 32, 64};

  private final Conv2dImpl conv1;
  private final Conv2dImpl conv2;
  private final Conv2dImpl conv3;
  private final BatchNorm2dImpl norm1;
  private final BatchNorm2dImpl norm2;
  private final BatchNorm2dImpl norm3;
  private final LinearImpl linear;

  /**
   * @param norms of {@link #CHANNELS} channels, synchronized or not
   */
  DigitsNet(List<BatchNorm2dImpl> norms) {
    conv1 = register_module("conv1", convolution(1, CHANNELS[0], 3, 1, 1)); // 8 x 8
    norm1 = register_module("norm1", norms.get(0));
    conv2 = register_module("conv2", convolution(CHANNELS[0], CHANNELS[1], 3, 2, 1)); // 4 x 4
    norm2 = register_module("norm2", norms.get(1));
    conv3 = register_module("conv3", convolution(CHANNELS[1], CHANNELS[2], 4, 1, 0)); // 1 x 1
    norm3 = register_module("norm3", norms.get(2));
    linear = register_module("linear", new LinearImpl(CHANNELS[2], Digits.CLASSES));
  }

  /**
   * @param images [n, 1, 8, 8]
   * @return logits [n, 10]
   */
  Tensor forward(Tensor images) {
    Tensor x = silu(norm1.forward(conv1.forward(images)));
    x = silu(norm2.forward(conv2.forward(x)));
    x = silu(norm3.forward(conv3.forward(x)));
    return linear.forward(x.flatten(1, -1));
  }

  /** Without a bias, which the normalization behind it would take away again. */
  private static Conv2dImpl convolution(long in, long out, long kernel, long stride, long padding) {
    try (LongPointer size = new LongPointer(kernel, kernel);
        LongPointer step = new LongPointer(stride, stride);
        LongPointer border = new LongPointer(padding, padding);
        Conv2dOptions options = new Conv2dOptions(in, out, size)) {
      options.stride().put(step);
      options.padding().put(border);
      options.bias().put(false);
      return new Conv2dImpl(options);
    }
  }
}
