package io.github.syncbn4j.faults;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.cuda.Cuda;
import io.github.syncbn4j.device.CollectiveException;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What comes of a group that is closed before a graph of its collectives is destroyed? */
@Tag("sim")
@Tag("full")
@Timeout(60)
class GraphOutlivesGroupTest {
  /** NCCL waits for the graph, for ever; the group does not. */
  @Test
  void closing_givesUpAfterItsDeadline_andTheNextGroupWorks() {
    ReplicaGroup group = ReplicaGroup.gpus(0, 1);
    List<DeviceTensor> tensors =
        group.replicas().stream().map(each -> each.allocate(DType.FLOAT32, 1)).toList();
    group.allReduce(tensors); // connects the ranks
    Replica replica = group.replica(0);
    try (Cuda.Stream stream = new Cuda.Stream()) {
      replica.useStream(stream.address());
      try (Cuda.Graph graph = stream.capture(() -> replica.allReduce(tensors.get(0)))) {
        replica.useOwnStream();
        assertThatThrownBy(group::close)
            .isInstanceOf(CollectiveException.class)
            .hasMessage("NCCL did not close 2 GPUs within 10.000 s");
      }
    }
    group.close();
    try (ReplicaGroup next = ReplicaGroup.gpus(0, 1)) {
      next.allReduce(
          next.replicas().stream().map(each -> each.allocate(DType.FLOAT32, 1)).toList());
      next.synchronize();
      assertThat(next.failure()).isEmpty();
    }
  }
}
