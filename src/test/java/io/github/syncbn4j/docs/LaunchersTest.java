package io.github.syncbn4j.docs;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The documentation's commands that start a job, under the launchers themselves where this machine
 * has them, on simulated GPUs.
 */
@Tag("full")
class LaunchersTest {
  private static final int LIMIT_SECONDS = 600;
  private static final int GPUS = 8;

  private static final String MAIN =
      """
      import io.github.syncbn4j.DType;
      import io.github.syncbn4j.DeviceTensor;
      import io.github.syncbn4j.ReplicaGroup;
      import java.util.List;

      public class Main {
        public static void main(String... arguments) {
          boolean one = System.getenv("RANK") == null && System.getenv("OMPI_COMM_WORLD_RANK") == null;
          try (ReplicaGroup group = one ? ReplicaGroup.gpus() : ReplicaGroup.fromEnvironment()) {
            List<DeviceTensor> ones =
                group.replicas().stream().map(replica -> replica.allocate(DType.FLOAT32, 1)).toList();
            ones.forEach(tensor -> tensor.copyFromHost(1));
            group.allReduce(ones);
            for (int i = 0; i < ones.size(); i++) {
              System.out.println(group.replicas().get(i).rank() + ": " + ones.get(i).copyToHost()[0]);
            }
          }
        }
      }
      """;

  /**
   * What scripts/syncbn does for simulated GPUs; and more ranks than cores, as any user. Of all
   * ways to hand over options, mpirun's own java.library.path leaves this one alone.
   */
  private static final String SIMULATED =
      """
      sim=$(readlink -f target/native/sim)
      export PATH=$JAVA_HOME/bin:$PATH
      export LD_PRELOAD=$sim/libcuda.so.1:$sim/libcudart.so.13:$sim/libnccl.so.2
      export _JAVA_OPTIONS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.library.path=$sim \
      -Dorg.bytedeco.javacpp.pathsFirst=true -Dorg.bytedeco.javacpp.cachedir=$sim/javacpp"
      export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
      """;

  @TempDir private Path folder;

  static List<String> everyRank_comes() throws IOException {
    return commands("everyRank_comes");
  }

  private static List<String> commands(String method) throws IOException {
    return CommandTable.commands(LaunchersTest.class, method);
  }

  @ParameterizedTest
  @MethodSource
  void everyRank_comes(String command) throws Exception {
    Checkout.requireOnPath(command.split(" ")[0]);
    String classPath = System.getProperty("java.class.path");
    try (Checkout checkout = Checkout.built(folder)) {
      Files.writeString(folder.resolve("Main.java"), MAIN);
      String compile =
          "$JAVA_HOME/bin/javac -cp %s Main.java && $JAVA_HOME/bin/jar cf app.jar Main.class";
      checkout.run(compile.formatted(classPath), 0, LIMIT_SECONDS);
      assertThat(checkout.run(SIMULATED + command.replace("...", classPath), GPUS, LIMIT_SECONDS))
          .containsExactlyInAnyOrderElementsOf(
              IntStream.range(0, GPUS).mapToObj(rank -> rank + ": 8.0").toList());
    }
  }

  @Test
  void lesson_printsTheSame_underTorchrun() throws Exception {
    Checkout.requireOnPath("torchrun");
    Path lesson = LessonsTest.LESSONS.resolve("03-process-a-gpu");
    try (Checkout checkout = Checkout.built(folder)) {
      for (String command : commands("lesson_printsTheSame_underTorchrun")) {
        String line = command + " scripts/syncbn run " + lesson.resolve("ProcessAGpu.java");
        assertThat(checkout.run(line, 2, LIMIT_SECONDS))
            .isEqualTo(Page.of(lesson.resolve("README.md")).blocks().get(1).lines());
      }
    }
  }

  @Test
  void training_isOneJob() throws Exception {
    Checkout.requireOnPath("torchrun");
    try (Checkout checkout = Checkout.built(folder)) {
      for (String command : commands("training_isOneJob")) {
        assertThat(checkout.run(command, 2, LIMIT_SECONDS))
            .filteredOn(line -> line.startsWith("test accuracy: sync "))
            .hasSize(1);
      }
    }
  }
}
