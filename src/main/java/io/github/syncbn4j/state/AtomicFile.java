package io.github.syncbn4j.state;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.ThreadLocalRandom;

/** How a file is written so that at any time there is the former one or the new one, whole. */
public final class AtomicFile {
  private AtomicFile() {}

  /** Writes what a file shall hold. */
  @FunctionalInterface
  public interface Content {
    void writeTo(WritableByteChannel channel) throws IOException;
  }

  /**
   * Writes beside the file, under a name that nobody else writes to, has that reach the disk, and
   * renames it. What ends it early leaves the former file, and nothing beside it.
   *
   * @return {@code file}
   * @throws IOException with the file's name
   */
  public static Path write(Path file, Content content) throws IOException {
    String suffix = Long.toHexString(ThreadLocalRandom.current().nextLong());
    Path partial = file.resolveSibling("." + file.getFileName() + "." + suffix + ".part");
    try {
      try (FileChannel channel =
          FileChannel.open(partial, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
        content.writeTo(channel);
        channel.force(true);
      }
      Files.move(partial, file, StandardCopyOption.ATOMIC_MOVE);
      forceFolderOf(file);
      return file;
    } catch (NoSuchFileException e) {
      throw cannotWrite(file, "its folder does not exist", e);
    } catch (AccessDeniedException e) {
      throw cannotWrite(file, "no permission", e);
    } catch (FileSystemException e) {
      throw cannotWrite(file, e.getReason() == null ? e.getMessage() : e.getReason(), e);
    } catch (IOException e) {
      throw cannotWrite(file, e.getMessage(), e);
    } finally {
      Files.deleteIfExists(partial);
    }
  }

  /** Until its folder is on the disk too, the loss of power may bring back the former file. */
  private static void forceFolderOf(Path file) {
    Path folder = file.toAbsolutePath().getParent();
    try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
      channel.force(true);
    } catch (IOException e) {
      // Refused by some systems, and for folders that may be written and not read: the file is
      // there, whole, and only its name may still be lost.
    }
  }

  /** As {@link #write(Path, Content)}. */
  public static Path write(Path file, byte[] content) throws IOException {
    return write(file, channel -> writeFully(channel, ByteBuffer.wrap(content)));
  }

  static void writeFully(WritableByteChannel channel, ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
  }

  private static IOException cannotWrite(Path file, String reason, IOException cause) {
    return new IOException("%s cannot be written: %s".formatted(file, reason), cause);
  }
}
