package io.github.syncbn4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.github.syncbn4j.nn.Constraints;
import io.github.syncbn4j.nn.Initializers;
import io.github.syncbn4j.nn.Regularizers;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The layer's options as JSON: Keras' keys, both ways. */
class KerasConfigTest {
  private final ReplicaGroup group = ReplicaGroup.cpus(1);

  @AfterEach
  void close() {
    group.close();
  }

  @Test
  void defaults_areWrittenAsKerasDoes() {
    SyncBatchNormalization layer =
        SyncBatchNormalization.builder(group).name("bn").build(-1, 8, 8, 3);
    assertThat(layer.getConfig())
        .isEqualTo(
            """
            {"name":"bn","trainable":true,"dtype":"float32","axis":[3],"momentum":0.99,\
            "epsilon":0.001,"center":true,"scale":true,\
            "beta_initializer":{"class_name":"Zeros","config":{}},\
            "gamma_initializer":{"class_name":"Ones","config":{}},\
            "moving_mean_initializer":{"class_name":"Zeros","config":{}},\
            "moving_variance_initializer":{"class_name":"Ones","config":{}},\
            "beta_regularizer":null,"gamma_regularizer":null,\
            "beta_constraint":null,"gamma_constraint":null}""");
  }

  @Test
  void everyOption_survivesTheRoundTrip() {
    SyncBatchNormalization layer =
        SyncBatchNormalization.builder(group)
            .name("all")
            .trainable(false)
            .dtype(DType.BFLOAT16)
            .axis(1, -1)
            .cumulativeAverage()
            .epsilon(1e-5)
            .center(false)
            .scale(false)
            .betaInitializer(Initializers.constant(2))
            .gammaInitializer(Initializers.randomNormal(0, 0.1, 7))
            .movingMeanInitializer(null)
            .movingVarianceInitializer(Initializers.constant(4))
            .betaRegularizer(Regularizers.l1(0.5))
            .gammaRegularizer(Regularizers.l2(0.25))
            .betaConstraint(Constraints.nonNeg())
            .gammaConstraint(Constraints.maxNorm(3))
            .renorm(true)
            .renormClipping(new RenormClipping(0.5, 2.0, null))
            .renormMomentum(0.9)
            .relu(true)
            .build(-1, 4, 5);
    String config = layer.getConfig();
    assertThat(config)
        .contains(
            "\"axis\":[1,2]",
            "\"momentum\":null",
            "\"dtype\":\"bfloat16\"",
            "\"renorm\":true,\"renorm_clipping\":{\"rmax\":2.0,\"rmin\":0.5},\"renorm_momentum\":0.9",
            "\"activation\":\"relu\"");
    SyncBatchNormalization again = SyncBatchNormalization.fromConfig(group, config).build(-1, 4, 5);
    assertThat(again.getConfig()).isEqualTo(config);
    assertThat(again.isTrainable()).isFalse();
  }

  /** What TensorFlow 2.4 and Keras 3 write, with the keys of newer versions. */
  @Test
  void configurationsOfKeras_areRead() {
    String tf24 =
        """
        {"name": "sync_batch_normalization", "trainable": true, "dtype": "float32", "axis": [3],
         "momentum": 0.9, "epsilon": 1e-05, "center": true, "scale": true,
         "beta_initializer": {"class_name": "Zeros", "config": {}},
         "gamma_initializer": {"class_name": "Ones", "config": {}},
         "moving_mean_initializer": {"class_name": "Zeros", "config": {}},
         "moving_variance_initializer": {"class_name": "Ones", "config": {}},
         "beta_regularizer": null, "gamma_regularizer": {"class_name": "L2",
         "config": {"l2": 0.009999999776482582}}, "beta_constraint": null,
         "gamma_constraint": null}""";
    assertThat(SyncBatchNormalization.fromConfig(group, tf24).build(-1, 2, 2, 3).losses())
        .hasSize(1);
    String keras3 =
        """
        {"name": "batch_normalization", "trainable": true, "dtype": {"module": "keras",
         "class_name": "DTypePolicy", "config": {"name": "mixed_float16"}, "registered_name": null},
         "axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": true, "scale": true,
         "beta_initializer": {"module": "keras.initializers", "class_name": "Zeros", "config": {},
         "registered_name": null}, "synchronized": true, "renorm": false, "renorm_clipping": null,
         "renorm_momentum": 0.99}""";
    assertThat(SyncBatchNormalization.fromConfig(group, keras3).build(-1, 3).dtype())
        .isEqualTo(DType.FLOAT16);
  }

  @Test
  void unbiasedRunningVariance_isWrittenAndRead() {
    String config =
        SyncBatchNormalization.builder(group, 3).unbiasedRunningVariance(true).build().getConfig();
    assertThat(config).contains("\"axis\":-1", "\"running_variance\":\"unbiased\"");
    assertThat(SyncBatchNormalization.fromConfig(group, config).build(-1, 3).getConfig())
        .contains("\"running_variance\":\"unbiased\"");
  }

  @Test
  void batchInputShape_isBuiltFor_andKept() {
    SyncBatchNormalization layer =
        SyncBatchNormalization.fromConfig(group, "{\"batch_input_shape\": [null, 4, 3]}").build();
    assertThat(layer.channels()).isEqualTo(3);
    assertThat(layer.getConfig())
        .contains("\"trainable\":true,\"batch_input_shape\":[null,4,3],\"dtype\"", "\"axis\":[2]");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "{\"foo\": 1}                              | not understood: foo",
        "{\"axis\": 1.0}                           | axis must be an int or a list of ints, not 1.0",
        "{\"axis\": null}                          | axis must be an int or a list of ints, not null",
        "{\"axis\": \"1\"}                         | axis must be an int or a list of ints, not \"1\"",
        "{\"axis\": []}                            | axis must name a dimension, not []",
        "{\"momentum\": \"0.9\"}                   | momentum must be a number, not \"0.9\"",
        "{\"epsilon\": -1}                         | epsilon must be at least 0, not -1.0",
        "{\"center\": 1}                           | center must be true or false, not 1",
        "{\"dtype\": \"int32\"}                    | dtype must be float32, float16, bfloat16 or float64",
        "{\"dtype\": \"bool\"}                     | dtype must be",
        "{\"fused\": true}                         | fused true is not supported",
        "{\"virtual_batch_size\": 2}               | virtual_batch_size 2 is not supported",
        "{\"synchronized\": false}                 | synchronized false is not supported",
        "{\"renorm_clipping\": {\"x\": 1}}         | keys other than rmax, rmin and dmax: [x]",
        "{\"renorm_clipping\": {\"rmax\": \"2\"}}  | renorm_clipping.rmax must be a number",
        "{\"gamma_initializer\": \"bogus\"}        | Unknown initializer: bogus",
        "{\"batch_input_shape\": [null, \"3\"]}     | batch_input_shape must be a list of sizes",
        "{\"activation\": \"gelu\"}                | activation must be one of linear, relu",
        "[]                                        | must be a JSON object"
      })
  void strangeConfiguration_isRefusedWithItsValue(String json, String reason) {
    assertThatThrownBy(() -> SyncBatchNormalization.fromConfig(group, json))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining(reason);
  }

  @Test
  void whatHasNoConfiguration_isRefusedOrLeftOut() {
    SyncBatchNormalization own =
        SyncBatchNormalization.builder(group, 3)
            .gammaInitializer((values, shape) -> values[0] = 1)
            .build();
    assertThatThrownBy(own::getConfig)
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining("KerasConfigTest");
    SyncBatchNormalization adjusted =
        SyncBatchNormalization.builder(group, 3).adjustment((replica, shape) -> null).build();
    assertThat(adjusted.getConfig()).doesNotContain("adjustment");
  }

  @Test
  void names_areNumberedInTheProcess() {
    String first = SyncBatchNormalization.builder(group, 3).build().name();
    String second = SyncBatchNormalization.builder(group, 3).build().name();
    assertThat(first).startsWith("sync_batch_normalization");
    assertThat(second).matches("sync_batch_normalization_\\d+").isNotEqualTo(first);
  }
}
