package io.github.syncbn4j.nn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Keras' configurations of initializers: what is written and read, and what is refused. */
class InitializerConfigTest {
  static Stream<Arguments> configurations() {
    return Stream.of(
        Arguments.of(Initializers.zeros(), "{\"class_name\":\"Zeros\",\"config\":{}}"),
        Arguments.of(Initializers.ones(), "{\"class_name\":\"Ones\",\"config\":{}}"),
        Arguments.of(
            Initializers.constant(0.5), "{\"class_name\":\"Constant\",\"config\":{\"value\":0.5}}"),
        Arguments.of(
            Initializers.randomUniform(),
            "{\"class_name\":\"RandomUniform\",\"config\":"
                + "{\"minval\":-0.05,\"maxval\":0.05,\"seed\":null}}"),
        Arguments.of(
            Initializers.randomNormal(1, 2, 3),
            "{\"class_name\":\"RandomNormal\",\"config\":{\"mean\":1.0,\"stddev\":2.0,\"seed\":3}}"),
        Arguments.of(
            Initializers.truncatedNormal(),
            "{\"class_name\":\"TruncatedNormal\",\"config\":"
                + "{\"mean\":0.0,\"stddev\":0.05,\"seed\":null}}"),
        Arguments.of(
            Initializers.varianceScaling(2, "fan_out", "Normal", -1),
            "{\"class_name\":\"VarianceScaling\",\"config\":{\"scale\":2.0,\"mode\":\"fan_out\","
                + "\"distribution\":\"truncated_normal\",\"seed\":-1}}"),
        Arguments.of(
            Initializers.glorotUniform(),
            "{\"class_name\":\"GlorotUniform\",\"config\":{\"seed\":null}}"),
        Arguments.of(
            Initializers.heNormal(5), "{\"class_name\":\"HeNormal\",\"config\":{\"seed\":5}}"),
        Arguments.of(
            Initializers.orthogonal(1),
            "{\"class_name\":\"Orthogonal\",\"config\":{\"gain\":1.0,\"seed\":null}}"),
        Arguments.of(
            Initializers.identity(3), "{\"class_name\":\"Identity\",\"config\":{\"gain\":3.0}}"));
  }

  @ParameterizedTest
  @MethodSource("configurations")
  void configuration_roundTrips(Initializer initializer, String json) {
    Map<String, Object> config = Initializers.serialize(initializer);
    assertThat(ConfigJson.write(config)).isEqualTo(json);
    assertThat(ConfigJson.read(json)).isEqualTo(config);
    assertThat(Initializers.get(ConfigJson.read(json))).isEqualTo(initializer);
  }

  @Test
  void serialize_null() {
    assertThat(Initializers.serialize(null)).isNull();
  }

  @Test
  void serialize_ownImplementation() {
    assertThatThrownBy(() -> Initializers.serialize(new Own()))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(
            Own.class.getName() + " cannot be serialized: it is not one of Keras' initializers");
  }

  private static final class Own implements Initializer {
    @Override
    public void fill(double[] values, long... shape) {}
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{'module':'keras.initializers','class_name':'RandomNormal',"
            + "'config':{'mean':0,'stddev':0.05,'seed':null},'registered_name':null}",
        "{'class_name':'random_normal','config':{'dtype':'float32'},'shared_object_id':7}",
        "{'config':{},'class_name':'normal'}"
      })
  void configuration_ofOtherVersions(String json) {
    assertThat(Initializers.get(ConfigJson.read(json.replace('\'', '"'))))
        .isEqualTo(Initializers.randomNormal());
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{'class_name':'bogus','config':{}} | Unknown initializer: bogus",
        "{'class_name':'Zeros','config':{},'extra':1} | initializer: unknown key \"extra\", known are"
            + " class_name and config",
        "{'config':{}} | initializer: \"class_name\" must be a string, got null",
        "{'class_name':3,'config':{}} | initializer: \"class_name\" must be a string, got 3",
        "{'class_name':'Zeros'} | initializer Zeros: \"config\" must be an object, got null",
        "{'class_name':'Zeros','config':[]} | initializer Zeros: \"config\" must be an object, got []",
        "{'class_name':'Zeros','config':{'value':1}} | Zeros: unknown key \"value\", known are []",
        "{'class_name':'normal','config':{'sigma':1}} | normal: unknown key \"sigma\", known are"
            + " [mean, stddev, seed]",
        "{'class_name':'Constant','config':{'value':'1'}} | Constant: \"value\" must be a number, got"
            + " \"1\"",
        "{'class_name':'Constant','config':{'value':true}} | Constant: \"value\" must be a number, got"
            + " true",
        "{'class_name':'Constant','config':{'value':null}} | Constant: \"value\" must be a number, got"
            + " null",
        "{'class_name':'Constant','config':{'value':[1]}} | Constant: \"value\" must be a number, got"
            + " [1]",
        "{'class_name':'RandomNormal','config':{'seed':1.5}} | RandomNormal: \"seed\" must be an"
            + " integer or null, got 1.5",
        "{'class_name':'RandomNormal','config':{'seed':false}} | RandomNormal: \"seed\" must be an"
            + " integer or null, got false",
        "{'class_name':'VarianceScaling','config':{'mode':1}} | VarianceScaling: \"mode\" must be a"
            + " string, got 1",
        "{'class_name':'VarianceScaling','config':{'mode':'fan'}} | Invalid `mode` argument: fan",
        "{'class_name':'VarianceScaling','config':{'distribution':'cauchy'}} | Invalid `distribution`"
            + " argument: cauchy",
        "{'class_name':'VarianceScaling','config':{'scale':0}} | `scale` must be positive float."
            + " Received: 0.0",
        "{'class_name':'GlorotUniform','config':{'scale':1}} | GlorotUniform: unknown key \"scale\","
            + " known are [seed]"
      })
  void configuration_errors(String json, String message) {
    Map<String, Object> config = ConfigJson.read(json.replace('\'', '"'));
    assertThatThrownBy(() -> Initializers.get(config))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(message);
  }

  @Test
  void parameters_mustBeFinite() {
    double nan = Double.NaN;
    double inf = Double.POSITIVE_INFINITY;
    List<Supplier<Initializer>> refused =
        List.of(
            () -> Initializers.constant(nan),
            () -> Initializers.randomUniform(nan, 1),
            () -> Initializers.randomUniform(0, inf),
            () -> Initializers.randomUniform(-1.5e308, 1.5e308),
            () -> Initializers.randomNormal(-inf, 1),
            () -> Initializers.randomNormal(0, nan),
            () -> Initializers.truncatedNormal(0, inf),
            () -> Initializers.varianceScaling(nan, "fan_in", "uniform"),
            () -> Initializers.varianceScaling(inf, "fan_in", "uniform"),
            () -> Initializers.varianceScaling(-1, "fan_in", "uniform"),
            () -> Initializers.orthogonal(inf),
            () -> Initializers.identity(nan));
    for (Supplier<Initializer> supplier : refused) {
      assertThatThrownBy(supplier::get)
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageMatching(".*(NaN|Infinity|-1\\.0).*");
    }
    assertThatCode(() -> Initializers.randomNormal(0, -1)).doesNotThrowAnyException();
  }

  @Test
  void message_isShortAndPrintable() {
    assertThatThrownBy(() -> Initializers.get("a\n\u001b[31m" + "x".repeat(1000)))
        .hasMessageStartingWith("Unknown initializer: a\\u000a\\u001b[31mxxx")
        .hasMessageEndingWith("...")
        .message()
        .hasSizeLessThan(140);
  }
}
