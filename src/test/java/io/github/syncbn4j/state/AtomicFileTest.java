package io.github.syncbn4j.state;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A file is the former one or the new one, whatever happens between. */
class AtomicFileTest {
  @TempDir Path folder;

  @Test
  void writeThatEndsEarly_leavesTheFormerFile_andNothingBeside() throws IOException {
    Path file = AtomicFile.write(folder.resolve("state"), new byte[] {1, 2, 3});
    assertThatThrownBy(
            () ->
                AtomicFile.write(
                    file,
                    channel -> {
                      channel.write(ByteBuffer.allocate(10));
                      throw new IOException("No space left on device");
                    }))
        .isInstanceOf(IOException.class)
        .hasMessage(file + " cannot be written: No space left on device");
    assertThat(file).hasBinaryContent(new byte[] {1, 2, 3});
    assertThat(folder.toFile().list()).containsExactly("state");
  }

  @Test
  void writersAtOnce_leaveOneWholeFile() throws Exception {
    Path file = folder.resolve("state");
    ExecutorService writers = Executors.newFixedThreadPool(4);
    List<Future<Path>> written = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      byte[] content = new byte[10_000];
      java.util.Arrays.fill(content, (byte) i);
      written.add(writers.submit(() -> AtomicFile.write(file, content)));
    }
    for (Future<Path> one : written) {
      one.get();
    }
    writers.shutdown();
    byte[] content = Files.readAllBytes(file);
    assertThat(content).hasSize(10_000).containsOnly(content[0]);
    assertThat(folder.toFile().list()).containsExactly("state");
  }

  @Test
  void folderThatIsNotThere_andOneInTheWay_areNamed() throws IOException {
    Path nowhere = folder.resolve("no").resolve("state");
    assertThatThrownBy(() -> AtomicFile.write(nowhere, new byte[1]))
        .hasMessage(nowhere + " cannot be written: its folder does not exist");
    Path taken = Files.createDirectories(folder.resolve("taken"));
    Files.createFile(taken.resolve("inside"));
    assertThatThrownBy(() -> AtomicFile.write(taken, new byte[1]))
        .hasMessageStartingWith(taken + " cannot be written: ");
    assertThat(folder.toFile().list()).containsExactly("taken");
  }
}
