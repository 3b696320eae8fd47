package io.github.syncbn4j.cli.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;

/** How a file is written so that at any time there is the former one or the new one, whole. */
final class AtomicFile {
  private AtomicFile() {}

  /** Writes beside the file, has that reach the disk, and renames it. */
  static Path write(Path file, byte[] content) throws IOException {
    Path partial = file.resolveSibling("." + file.getFileName() + ".part");
    try (FileChannel channel =
        FileChannel.open(
            partial,
            StandardOpenOption.CREATE,
            StandardOpenOption.WRITE,
            StandardOpenOption.TRUNCATE_EXISTING)) {
      ByteBuffer rest = ByteBuffer.wrap(content);
      while (rest.hasRemaining()) {
        channel.write(rest);
      }
      channel.force(true);
    } catch (FileSystemException e) {
      throw e; // which names the file
    } catch (IOException e) {
      throw new IOException("%s: %s".formatted(partial, e.getMessage()), e);
    }
    return Files.move(partial, file, StandardCopyOption.ATOMIC_MOVE);
  }
}
