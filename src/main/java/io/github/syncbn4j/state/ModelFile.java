package io.github.syncbn4j.state;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * A model's tensors, from safetensors or from one of Keras' files.
 *
 * @param path where it was read from, for messages
 * @param tensors by name; those of Keras' files have the names that {@link KerasH5} gives them
 * @param metadata text by name
 * @param leftOut what else is in the file, with the reason, a line each
 */
public record ModelFile(
    Path path,
    Map<String, StoredTensor> tensors,
    Map<String, String> metadata,
    List<String> leftOut) {
  private static final byte[] HDF5 = {(byte) 0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  private static final byte[] ZIP = {'P', 'K', 3, 4};
  private static final byte[] DJL = {'D', 'J', 'L', '@'};
  private static final byte[] PICKLE = {(byte) 0x80, 2};

  /**
   * Reads a file of any of these kinds, which its first bytes tell.
   *
   * @throws IOException with the file's name, if it is none of them, is damaged, or cannot be read
   */
  public static ModelFile read(Path file) throws IOException {
    if (!Files.exists(file)) {
      throw new NoSuchFileException(file.toString(), null, "no such file");
    }
    if (!Files.isRegularFile(file)) {
      throw new StateException(file, "not a regular file");
    }
    byte[] begin = firstBytes(file);
    if (begins(begin, PICKLE)) {
      throw KerasArchive.isPickle(file);
    }
    if (begins(begin, DJL)) {
      throw new StateException(
          file, "DJL's own format, which is not read: write it as safetensors (NDList.encode)");
    }
    boolean zip = begins(begin, ZIP);
    if (!zip && !begins(begin, HDF5)) {
      Safetensors safetensors = Safetensors.read(file);
      return new ModelFile(file, safetensors.tensors(), safetensors.metadata(), List.of());
    }
    try {
      return zip ? KerasArchive.read(file) : KerasH5.read(file);
    } catch (NoClassDefFoundError e) {
      throw new StateException(file, "Keras' files need io.jhdf:jhdf on the class path", e);
    }
  }

  private static byte[] firstBytes(Path file) throws IOException {
    try (var in = Files.newInputStream(file)) {
      return in.readNBytes(HDF5.length);
    }
  }

  private static boolean begins(byte[] bytes, byte[] with) {
    return bytes.length >= with.length
        && Arrays.equals(bytes, 0, with.length, with, 0, with.length);
  }

  /**
   * Whose names these are: the framework under whose names there are batch normalizations.
   *
   * @throws StateException if there is none, or more than one
   */
  public Naming naming() throws StateException {
    if (Safetensors.STATE_FORMAT.equals(metadata.get(Safetensors.FORMAT))
        || tensors.keySet().stream()
            .anyMatch(name -> Naming.SYNCBN4J.prefix(name, Naming.COUNTED_STEPS) != null)) {
      return Naming.SYNCBN4J;
    }
    List<Naming> found =
        Arrays.stream(Naming.values())
            .filter(
                naming -> naming != Naming.SYNCBN4J && !BatchNorms.prefixes(this, naming).isEmpty())
            .toList();
    if (found.size() != 1) {
      throw new StateException(
          path,
          found.isEmpty()
              ? "no batch normalization under the names of any framework (nothing ends in %s)"
                  .formatted(
                      Arrays.stream(Naming.values())
                          .map(naming -> naming.word("moving_mean"))
                          .distinct()
                          .collect(Collectors.joining(", ")))
              : "batch normalizations under the names of several frameworks, say which are meant: "
                  + found);
    }
    return found.get(0);
  }
}
