package io.github.syncbn4j.state;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Collections;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipException;
import java.util.zip.ZipFile;

/** Keras' {@code .keras} files: a zip archive of the weights and the configuration. */
final class KerasArchive {
  private static final String WEIGHTS = "model.weights.h5";
  private static final String CONFIG = "config.json";

  /** The most bytes of a configuration. */
  private static final int MAX_CONFIG_BYTES = 64 << 20;

  private KerasArchive() {}

  static ModelFile read(Path file) throws IOException {
    try (ZipFile zip = new ZipFile(file.toFile())) {
      if (zip.getEntry(WEIGHTS) == null) {
        if (Collections.list(zip.entries()).stream()
            .anyMatch(entry -> entry.getName().endsWith("data.pkl"))) {
          throw isPickle(file);
        }
        throw new StateException(file, "a zip archive without " + WEIGHTS + ": no .keras file");
      }
      KerasLayers layers = KerasLayers.NONE;
      if (zip.getEntry(CONFIG) != null) {
        byte[] config = bytes(file, zip, CONFIG, MAX_CONFIG_BYTES);
        layers = KerasLayers.parse(new String(config, StandardCharsets.UTF_8));
      }
      return KerasH5.read(file, bytes(file, zip, WEIGHTS, Integer.MAX_VALUE - 8), layers);
    } catch (ZipException e) {
      throw new StateException(file, "a damaged zip archive: " + e.getMessage(), e);
    }
  }

  /** A pickle runs code where it is read. */
  static StateException isPickle(Path file) {
    return new StateException(
        file,
        "a pickle of PyTorch's, which is not read: write it with"
            + " safetensors.torch.save_file(model.state_dict(), FILE)");
  }

  private static byte[] bytes(Path file, ZipFile zip, String name, int most) throws IOException {
    ZipEntry entry = zip.getEntry(name);
    if (entry.getSize() > most) {
      throw new StateException(
          file, "%s has %d bytes, the limit is %d".formatted(name, entry.getSize(), most));
    }
    try (InputStream in = zip.getInputStream(entry)) {
      byte[] bytes = in.readNBytes(most);
      CRC32 checksum = new CRC32();
      checksum.update(bytes);
      if (checksum.getValue() != entry.getCrc()) {
        throw new StateException(file, "damaged: the checksum of " + name + " is wrong");
      }
      return bytes;
    }
  }
}
