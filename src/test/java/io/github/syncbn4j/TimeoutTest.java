package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.device.CollectiveException;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Where a group's timeout comes from: its builder, or {@code -Dsyncbn.timeout}. */
class TimeoutTest {
  private static final String PROPERTY = "syncbn.timeout";

  @AfterEach
  void forget() {
    System.clearProperty(PROPERTY);
  }

  /** What the first of two replicas says of the other, which does not come. */
  private static String messageOf(ReplicaGroup.Builder builder) {
    try (ReplicaGroup group = builder.cpus(2).threads(1).build()) {
      DeviceTensor tensor = group.replica(0).allocate(DType.FLOAT32, 1);
      group.replica(0).allReduce(tensor);
      return "nothing";
    } catch (CollectiveException e) {
      return e.getMessage();
    }
  }

  @Test
  void property_isTheDefault_andTheBuilderHasTheLastWord() {
    System.setProperty(PROPERTY, " 0.2s ");
    assertThat(messageOf(ReplicaGroup.builder()))
        .startsWith("rank(s) [1] did not come within 0.200 s where rank(s) [0] wait: sum of 1");
    assertThat(messageOf(ReplicaGroup.builder().timeout(Duration.ofMillis(300))))
        .startsWith("rank(s) [1] did not come within 0.300 s");
  }

  @ParameterizedTest
  @ValueSource(strings = {"10m", "20s", "1h30m", "0.001s"})
  void times(String text) {
    System.setProperty(PROPERTY, text);
    ReplicaGroup.builder().cpus(1).threads(1).build().close();
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "20", "s", "1.5m", "-1s", "0s", "9000h", "soon"})
  void whatIsNoTime_isRefused(String text) {
    System.setProperty(PROPERTY, text);
    assertThatThrownBy(ReplicaGroup::builder)
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("-Dsyncbn.timeout must be a time such as 20s or 10m, not '" + text + "'");
  }
}
