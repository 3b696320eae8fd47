package io.github.syncbn4j.gpu;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.cli.cuda.Cuda;
import io.github.syncbn4j.device.cuda.OneRank;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** That what times the kernels can run, and looks at what they computed. */
@Tag("sim")
@Timeout(120)
class SimTimedCaseTest {
  @ParameterizedTest
  @CsvSource({
    "FLOAT32, true, true",
    "FLOAT16, false, true",
    "BFLOAT16, true, true",
    "FLOAT32, true, false",
  })
  void everyPass_isTimed_andItsResultLookedAt(DType dtype, boolean channelsLast, boolean numbers) {
    try (OneRank rank = new OneRank(0, Duration.ofSeconds(30));
        ReplicaGroup group = ReplicaGroup.gpus(0);
        Cuda.Stream stream = new Cuda.Stream();
        Cuda.Memory source =
            numbers
                ? KernelTimes.random(rank.device(), dtype, 1 << 12)
                : new Cuda.Memory(1 << 14)) {
      Replica replica = group.replica(0);
      replica.useStream(stream.address());
      rank.device().useStream(stream.address());
      TimedCase.Tensors tensors = new TimedCase.Tensors(dtype, channelsLast, 2, 5, 6);
      TimedCase.Effort effort = new TimedCase.Effort(3, 4, 2);
      try (TimedCase timed = new TimedCase(rank, replica, stream, tensors, effort, source)) {
        Map<String, TimedCase.Result> results = timed.run();
        assertThat(results.keySet())
            .containsExactlyInAnyOrder(
                "copy",
                "stats",
                "normalize",
                "backward_reduce",
                "backward_input",
                "separate_forward",
                "separate_backward",
                "nccl_forward",
                "nccl_forward_call",
                "nccl_backward",
                "nccl_backward_call",
                "inference",
                "inference_call",
                "forward",
                "forward_call",
                "backward",
                "backward_call");
        // Fresh memory is NaN, and so are results then.
        assertThat(results.values())
            .allSatisfy(
                result -> {
                  assertThat(result.isRight()).as("%s", result).isEqualTo(numbers);
                  assertThat(result.times().samples()).isEqualTo(4);
                  assertThat(result.times().p10()).isPositive();
                  assertThat(result.times().median())
                      .isBetween(result.times().p10(), result.times().p90());
                });
      }
      replica.useOwnStream();
      rank.device().useOwnStream();
      replica.synchronize();
    }
  }
}
