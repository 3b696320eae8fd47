package io.github.syncbn4j.state;

import io.github.syncbn4j.check.Shown;
import io.jhdf.HdfFile;
import io.jhdf.api.Dataset;
import io.jhdf.api.Group;
import io.jhdf.api.Node;
import io.jhdf.dataset.DatasetBase;
import io.jhdf.object.datatype.DataType;
import io.jhdf.object.datatype.FixedPoint;
import io.jhdf.object.datatype.FloatingPoint;
import io.jhdf.object.datatype.OrderedDataType;
import io.jhdf.storage.HdfBackingStorage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The tensors of Keras' HDF5 files, all of them under their paths in the file, and then those of
 * batch normalizations under their names: see {@link KerasNames}.
 *
 * <p>The library that reads HDF5 is an optional dependency: only this class names its types.
 */
final class KerasH5 {
  /** The deepest groups. */
  private static final int MAX_DEPTH = 64;

  /** How many times longer data may be than in the file: deflate's best is 1032. */
  private static final int MOST_COMPRESSION = 1100;

  /** The most groups and tensors: links can make a few look like many. */
  private static final int MAX_NODES = 1 << 18;

  private final Path path;
  private final Map<String, StoredTensor> tensors = new LinkedHashMap<>();
  private final Map<String, String> layerNames = new LinkedHashMap<>();
  private final List<String> leftOut = new ArrayList<>();

  private long fileBytes;
  private int nodes;

  private KerasH5(Path path) {
    this.path = path;
  }

  /** A {@code .weights.h5}, or an {@code .h5} of a whole model. */
  static ModelFile read(Path path) throws IOException {
    try (FileChannel channel = FileChannel.open(path)) {
      long size = channel.size();
      if (size > Integer.MAX_VALUE) {
        return read(path, () -> new HdfFile(path), KerasLayers.NONE);
      }
      // From memory, where a length that the file claims allocates nothing.
      ByteBuffer bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, size);
      return read(path, () -> HdfFile.fromByteBuffer(bytes), KerasLayers.NONE);
    }
  }

  /** The weights of a {@code .keras} file. */
  static ModelFile read(Path path, byte[] weights, KerasLayers layers) throws IOException {
    return read(path, () -> HdfFile.fromBytes(weights), layers);
  }

  private interface Opening {
    HdfFile open();
  }

  private static ModelFile read(Path path, Opening opening, KerasLayers layers) throws IOException {
    KerasH5 reader = new KerasH5(path);
    try (HdfFile file = opening.open()) {
      reader.requireWhole(file.getHdfBackingStorage());
      String config = text(file, "model_config");
      reader.collect(file, "", 0);
      return new KerasNames(
              path, reader.layerNames, config == null ? layers : KerasLayers.parse(config))
          .name(reader.tensors, reader.leftOut);
    } catch (RuntimeException | StackOverflowError | OutOfMemoryError e) {
      // What a damaged file makes of offsets and lengths ends as any of these.
      throw new StateException(
          path,
          "HDF5 that cannot be read (damaged, or with bfloat16 variables: then give what %s writes): %s"
              .formatted(KerasNames.BY_NAME, cause(e)),
          e);
    }
  }

  private void requireWhole(HdfBackingStorage storage) throws StateException {
    fileBytes = storage.size();
    long end = storage.getSuperblock().getEndOfFileAddress();
    if (fileBytes < end) {
      throw new StateException(path, "HDF5 of %d bytes, cut to %d".formatted(end, fileBytes));
    }
  }

  private static String cause(Throwable e) {
    Throwable deepest = e;
    while (deepest.getCause() != null) {
      deepest = deepest.getCause();
    }
    return deepest.getMessage() == null ? deepest.toString() : deepest.getMessage();
  }

  private void collect(Group group, String at, int depth) throws StateException {
    if (depth > MAX_DEPTH) {
      throw new StateException(path, "groups more than " + MAX_DEPTH + " deep, the limit");
    }
    String name = text(group, "name");
    if (name != null) {
      layerNames.put(at, name);
    }
    for (Map.Entry<String, Node> child : group.getChildren().entrySet()) {
      if (++nodes > MAX_NODES) {
        throw new StateException(path, "more than " + MAX_NODES + " groups and tensors, the limit");
      }
      String where = at.isEmpty() ? child.getKey() : at + "/" + child.getKey();
      Node node = child.getValue();
      if (node.isLink()) {
        leftOut.add(where + " (a link)");
      } else if (node instanceof Group inner) {
        collect(inner, where, depth + 1);
      } else if (node instanceof Dataset dataset) {
        add(where, dataset);
      }
    }
  }

  private static String text(Node node, String attribute) {
    return node.getAttributes().containsKey(attribute)
            && node.getAttribute(attribute).getData() instanceof String text
        ? text
        : null;
  }

  private void add(String where, Dataset dataset) throws StateException {
    String dtype = dtype(dataset);
    if (dtype == null) {
      leftOut.add("%s (%s)".formatted(where, dataset.getDataType().getClass().getSimpleName()));
      return;
    }
    long[] shape = dataset.getDimensionsAsLong();
    try {
      long bytes = StoredTensor.bytes(dtype, shape);
      if (bytes / MOST_COMPRESSION > fileBytes) {
        throw new IllegalArgumentException(
            "%d bytes of data in a file of %d".formatted(bytes, fileBytes));
      }
      ByteBuffer data = ByteBuffer.allocate((int) bytes);
      if (data.hasRemaining()) {
        data.put(((DatasetBase) dataset).getDataBuffer()).flip();
      }
      tensors.put(where, new StoredTensor(dtype, shape, data));
    } catch (IllegalArgumentException e) {
      throw new StateException(path, "%s: %s".formatted(Shown.quoted(where), e.getMessage()), e);
    }
  }

  /** Null for one that safetensors has no type for. */
  private static String dtype(Dataset dataset) {
    DataType type = dataset.getDataType();
    if (type instanceof OrderedDataType ordered
        && ordered.getByteOrder() != ByteOrder.LITTLE_ENDIAN) {
      return null;
    }
    String bits = Integer.toString(type.getSize() * Byte.SIZE);
    String dtype =
        type instanceof FloatingPoint
            ? "F" + bits
            : type instanceof FixedPoint number ? (number.isSigned() ? "I" : "U") + bits : "";
    return StoredTensor.elementBytes(dtype) == type.getSize() ? dtype : null;
  }
}
