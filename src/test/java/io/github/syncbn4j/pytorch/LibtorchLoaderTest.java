package io.github.syncbn4j.pytorch;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;

import io.github.syncbn4j.processes.RankProcess;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** JVMs that load libtorch at the same time. */
class LibtorchLoaderTest {
  private static final int PROCESSES = 3;
  private static final int ROUNDS = 3;
  private static final int LIMIT_SECONDS = 120;

  @TempDir private Path folder;

  /** A program. */
  static final class Main {
    public static void main(String... arguments) {
      LibtorchLoader.load();
      System.out.println(torch.zeros(2, 3).numel());
    }
  }

  /** Without the lock, about every second round ends a JVM with SIGBUS. */
  @Test
  @Tag("full")
  void processes_unpackAndLoad_atOnce() throws Exception {
    for (int round = 0; round < ROUNDS; round++) {
      String cache = Files.createDirectory(folder.resolve("cache" + round)).toString();
      List<Process> processes = new ArrayList<>();
      for (int i = 0; i < PROCESSES; i++) {
        ProcessBuilder builder = new ProcessBuilder(RankProcess.command(Main.class, List.of()));
        builder.environment().put("JAVA_TOOL_OPTIONS", "-Dorg.bytedeco.javacpp.cachedir=" + cache);
        builder.redirectErrorStream(true).redirectOutput(folder.resolve(i + ".log").toFile());
        processes.add(builder.directory(folder.toFile()).start());
        Thread.sleep(100); // so that one unpacks while the next starts
      }
      for (int i = 0; i < PROCESSES; i++) {
        assertThat(processes.get(i).waitFor(LIMIT_SECONDS, TimeUnit.SECONDS)).isTrue();
        assertThat(folder.resolve(i + ".log")).content().endsWith("\n6\n");
        assertThat(processes.get(i).exitValue()).isZero();
      }
    }
  }

  @Test
  void processThatDoesNotEnd_isNotWaitedForWithoutLimit() throws Exception {
    Path file = folder.resolve("lock");
    try (FileChannel channel =
            FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        FileLock lock = channel.lock()) {
      assertThatIllegalStateException()
          .isThrownBy(() -> LibtorchLoader.load(file, Duration.ofMillis(50)))
          .withMessageContainingAll(file.toString(), "50 ms");
      lock.release();
      LibtorchLoader.load(file, Duration.ofMillis(50));
    }
  }
}
