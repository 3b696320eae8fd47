package io.github.syncbn4j.cli.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.github.syncbn4j.state.AtomicFile;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.zip.CRC32;
import java.util.zip.CheckedInputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipException;
import java.util.zip.ZipFile;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.ArchiveWriter;
import org.bytedeco.pytorch.DeviceOptional;
import org.bytedeco.pytorch.IValue;
import org.bytedeco.pytorch.InputArchive;
import org.bytedeco.pytorch.OutputArchive;

/**
 * A run between two epochs, as a file from which it goes on as if it had never stopped.
 *
 * <p>The file is an archive of libtorch: rank 0's network under {@code replica0}, those of other
 * replicas whose running statistics are their own under {@code replica1} and so on, Adam's state
 * under {@code optimizer}, and under {@code training} the rest as JSON.
 *
 * @param training that rest
 */
record Checkpoint(Path file, Training training) {
  private static final String FORMAT = "syncbn-train-checkpoint/1";
  private static final String NETWORK = "replica";
  private static final String OPTIMIZER = "optimizer";
  private static final String TRAINING = "training";
  private static final ObjectMapper JSON = new ObjectMapper();

  /**
   * What a run is, and how far it is.
   *
   * @param settings that its bits depend on, by their names
   * @param loss of every step so far
   * @param accuracy after every epoch so far
   */
  record Training(
      String format,
      Map<String, String> settings,
      double[] loss,
      double[] accuracy,
      double seconds) {
    Training(Map<String, String> settings, double[] loss, double[] accuracy, double seconds) {
      this(FORMAT, settings, loss, accuracy, seconds);
    }
  }

  /** How many steps the run has made. */
  int steps() {
    return training.loss().length;
  }

  /**
   * Writes a run's state; the file that was there stays until the new one is whole.
   *
   * @param trainers in rank order
   */
  @SuppressWarnings("try")
  static void write(Path file, Training training, List<ReplicaTrainer> trainers)
      throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (PointerScope scope = new PointerScope()) {
      OutputArchive archive = new OutputArchive();
      for (int rank = 0; rank < trainers.size(); rank++) {
        if (rank == 0 || !trainers.get(rank).hasBuffersOf(trainers.get(0))) {
          OutputArchive network = new OutputArchive(archive.compilation_unit());
          trainers.get(rank).network().save(network);
          archive.write(NETWORK + rank, network);
        }
      }
      OutputArchive optimizer = new OutputArchive(archive.compilation_unit());
      trainers.get(0).optimizer().save(optimizer);
      archive.write(OPTIMIZER, optimizer);
      archive.write(TRAINING, new IValue(JSON.writeValueAsString(training)));
      // Not into a file: libtorch ends the process when a disk is full.
      archive.save_to(
          new ArchiveWriter() {
            @Override
            public long call(Pointer data, long length) {
              byte[] part = new byte[(int) length];
              new BytePointer(data).capacity(length).get(part);
              bytes.writeBytes(part);
              return length;
            }
          });
    }
    AtomicFile.write(file, bytes.toByteArray());
  }

  /**
   * @throws IOException with the file, if it is no checkpoint or is damaged
   */
  @SuppressWarnings("try")
  static Checkpoint read(Path file) throws IOException {
    requireWhole(file);
    try (PointerScope scope = new PointerScope()) {
      IValue json = new IValue();
      open(file, new DeviceOptional()).read(TRAINING, json);
      Training training = JSON.readValue(json.toStringRef().getString(), Training.class);
      if (!FORMAT.equals(training.format())) {
        throw foreign(file, "its format is " + training.format(), null);
      }
      return new Checkpoint(file, training);
    } catch (JsonProcessingException e) {
      throw foreign(file, e.getOriginalMessage(), e);
    } catch (RuntimeException e) {
      throw foreign(file, firstLine(e), e);
    }
  }

  /** Libtorch compares no checksums, and trusts what it reads. */
  private static void requireWhole(Path file) throws IOException {
    if (!Files.exists(file)) {
      throw new NoSuchFileException(file.toString());
    }
    try (ZipFile zip = new ZipFile(file.toFile())) {
      for (ZipEntry entry : Collections.list(zip.entries())) {
        CRC32 checksum = new CRC32();
        try (InputStream in = new CheckedInputStream(zip.getInputStream(entry), checksum)) {
          in.transferTo(OutputStream.nullOutputStream());
        }
        if (checksum.getValue() != entry.getCrc()) {
          throw new ZipException("the checksum of %s is wrong".formatted(entry.getName()));
        }
      }
    } catch (ZipException | IllegalArgumentException e) {
      throw foreign(file, e.getMessage(), e);
    }
  }

  private static InputArchive open(Path file, DeviceOptional device) {
    InputArchive archive = new InputArchive();
    archive.load_from(file.toString(), device);
    return archive;
  }

  private static IOException foreign(Path file, String reason, Exception cause) {
    return new IOException("%s is no checkpoint, or is damaged: %s".formatted(file, reason), cause);
  }

  private static String firstLine(RuntimeException e) {
    return Objects.toString(e.getMessage(), e.toString()).lines().findFirst().orElse("");
  }

  /**
   * @throws IllegalArgumentException with both values, if it is of a run with other settings
   */
  void requireSettings(Map<String, String> settings) {
    settings.forEach(
        (name, value) -> {
          String saved = training.settings().get(name);
          if (!value.equals(saved)) {
            throw new IllegalArgumentException(
                "%s was saved with %s %s, not %s".formatted(file, name, saved, value));
          }
        });
  }

  /**
   * Gives a replica its network's and its optimizer's state, after which it is the others' equal as
   * when that was saved.
   */
  @SuppressWarnings("try")
  void restore(ReplicaTrainer trainer, int rank) throws IOException {
    try (PointerScope scope = new PointerScope()) {
      InputArchive archive = open(file, new DeviceOptional(trainer.device()));
      InputArchive network = new InputArchive();
      if (!archive.try_read(NETWORK + rank, network)) {
        archive.read(NETWORK + 0, network);
      }
      trainer.network().load(network);
      InputArchive optimizer = new InputArchive();
      archive.read(OPTIMIZER, optimizer);
      trainer.optimizer().load(optimizer);
    } catch (RuntimeException e) {
      throw foreign(file, firstLine(e), e);
    }
  }
}
