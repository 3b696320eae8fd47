package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.cli.cuda.Cuda;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Java of README's "Use it" and of docs/gpus.md, word for word: see docs.JavaTest. */
class DocumentedJavaTest {
  private static List<DeviceTensor> tensors(ReplicaGroup group) {
    return group.replicas().stream()
        .map(replica -> replica.allocate(DType.BFLOAT16, 2, 64, 64))
        .toList();
  }

  @Test
  void layersAsKerasAndResNetsHaveThem() {
    String json = "{\"momentum\": 0.9}";
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      SyncBatchNormalization layer =
          SyncBatchNormalization.builder(group, 64)
              .dtype(DType.BFLOAT16)
              .axis(1)
              .relu(true)
              .build();
      List<DeviceTensor> x = tensors(group), y = tensors(group), residual = tensors(group);
      List<DeviceTensor> dy = tensors(group), dx = tensors(group), dresidual = tensors(group);
      ForwardPass pass = layer.forward(x, y, residual, null, true);

      SyncBatchNormalization.fromConfig(group, json).build(-1, 56, 56, 64);
      SyncBatchNormalization.builder(group, 64).dtype(DType.BFLOAT16).axis(1).relu(true).build();
      layer.forward(x, y, residual, null, true);
      layer.backward(pass, dy, dx, dresidual);

      assertThat(layer.countedSteps()).isEqualTo(2);
    }
  }

  @Test
  @Tag("sim")
  void allGpus_byOneThread() {
    try (ReplicaGroup group = ReplicaGroup.gpus();
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 64).dtype(DType.BFLOAT16).build()) {
      List<DeviceTensor> x = tensors(group),
          y = tensors(group),
          dy = tensors(group),
          dx = tensors(group);
      try (ForwardPass pass = layer.forward(x, y, true)) {
        layer.backward(pass, dy, dx);
      }
    }
  }

  @Test
  @Tag("sim")
  void gpus_byAThreadEach() throws Exception {
    try (ReplicaGroup group = ReplicaGroup.gpus(0, 1);
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 64).dtype(DType.BFLOAT16).build()) {
      OnThreads.run(
          group,
          replica -> {
            DeviceTensor x = replica.allocate(DType.BFLOAT16, 32, 64), y = x, dy = x, dx = x;
            try (ForwardPass pass = layer.forward(replica, x, y, true)) {
              layer.backward(pass, dy, dx);
            }
          });
      assertThat(layer.countedSteps()).isEqualTo(1);
    }
  }

  @Test
  @Tag("sim")
  void streamOfTheCallers() {
    try (ReplicaGroup group = ReplicaGroup.gpus(0);
        Cuda.Stream callers = new Cuda.Stream()) {
      Replica replica = group.replica(0);
      long stream = callers.address();

      replica.useStream(stream);
      replica.useOwnStream();

      replica.synchronize();
    }
  }
}
