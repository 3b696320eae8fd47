package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.state.Naming;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The Java of README's "Port a model" is here, word for word, and runs: see docs.JavaTest. */
class PortModelReadmeTest {
  @Test
  void javaOfTheSection_runs(@TempDir Path folder) throws IOException {
    Path file = folder.resolve("state.safetensors");
    Path alone = folder.resolve("alone.safetensors");
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      SyncBatchNormalization layer = SyncBatchNormalization.builder(group, 2).build();
      SyncBatchNormalization other = SyncBatchNormalization.builder(group, 3).build();
      LayerState.save(file, Map.of("first", layer, "block.bn1", other), Naming.SYNCBN4J);
      layer.gamma(group.replica(1)).copyFromHost(2, 2);

      Map<String, SyncBatchNormalization> layers = Map.of("first", layer, "block.bn1", other);
      LayerState.load(file, layers, Naming.SYNCBN4J);
      LayerState.loadSome(file, Map.of("first", layer), Naming.SYNCBN4J);
      LayerState.save(file, layers, Naming.SYNCBN4J);
      layer.save(alone);
      layer.load(alone);

      assertThat(layer.gamma(group.replica(1)).copyToHost()).containsExactly(1, 1);
    }
  }
}
