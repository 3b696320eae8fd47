package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.junit.jupiter.api.Test;

class StateMemoryTest {
  private final Map<String, Pointer> state =
      new HashMap<>(
          Map.of(
              "gamma",
              new FloatPointer(2, 3),
              "beta",
              new FloatPointer(1, 0),
              "moving_mean",
              new FloatPointer(10, 20),
              "moving_variance",
              new FloatPointer(4, 9),
              StateMemory.COUNTED_STEPS,
              new LongPointer(new long[] {5})));

  @Test
  void layerInMemoryOfTheCallers_startsFromItsValues_andLeavesItThere() {
    try (ReplicaGroup group = ReplicaGroup.cpus(1)) {
      Replica replica = group.replica(0);
      List<String> asked = new ArrayList<>();
      SyncBatchNormalization layer =
          SyncBatchNormalization.builder(group, 2)
              .momentum(0.5)
              .stateMemory(
                  (which, name, bytes) -> {
                    asked.add(name + " " + bytes);
                    return state.get(name).address();
                  })
              .build();
      assertThat(asked)
          .containsExactly(
              "gamma 8", "beta 8", "moving_mean 8", "moving_variance 8", "counted_steps 8");
      assertThat(layer.gamma(replica).copyToHost()).containsExactly(2, 3);
      assertThat(layer.countedSteps()).isEqualTo(5);

      DeviceTensor x = replica.allocate(DType.FLOAT32, 2, 2);
      DeviceTensor y = replica.allocate(DType.FLOAT32, 2, 2);
      x.copyFromHost(2, 4, 4, 8);
      layer.forward(replica, x, y, true).close();
      layer.close();
      assertThat(((FloatPointer) state.get("moving_mean")).get(1)).isCloseTo(13, within(1e-6f));
      assertThat(((LongPointer) state.get(StateMemory.COUNTED_STEPS)).get()).isEqualTo(6);
      assertThat(((FloatPointer) state.get("gamma")).get(1)).isEqualTo(3);
    }
  }

  /** What a scope is open for is over with it, but not what the group keeps. */
  @Test
  void groupAndPassesMadeInAScope_areUsedAfterIt() {
    ReplicaGroup group;
    SyncBatchNormalization layer;
    DeviceTensor x;
    try (PointerScope scope = new PointerScope()) {
      scope.attach(new DoublePointer(1));
      group = ReplicaGroup.cpus(1);
      layer = SyncBatchNormalization.builder(group, 2).build();
      x = group.replica(0).allocate(DType.FLOAT32, 2, 2);
      x.copyFromHost(2, 4, 4, 8);
      layer.forward(group.replica(0), x, x, true).close();
    }
    layer.forward(group.replica(0), x, x, true).close();
    group.synchronize();
    assertThat(layer.countedSteps()).isEqualTo(2);
    group.close();
  }
}
