package io.github.syncbn4j.nn;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Configurations as JSON text, and texts that are refused. */
class ConfigJsonTest {
  @Test
  void read_types() {
    Map<String, Object> config =
        ConfigJson.read(
            "{\"name\":\"b\\u00e9\", \"trainable\":true, \"axis\":[-1, 3], \"momentum\":0.99,"
                + "\"epsilon\":1e-3, \"seed\":9007199254740993, \"none\":null, \"inner\":{}}");
    assertThat(config)
        .isExactlyInstanceOf(LinkedHashMap.class)
        .containsEntry("name", "bé")
        .containsEntry("trainable", true)
        .containsEntry("axis", List.of(-1L, 3L))
        .containsEntry("momentum", 0.99)
        .containsEntry("epsilon", 0.001)
        .containsEntry("seed", 9007199254740993L)
        .containsEntry("none", null)
        .containsEntry("inner", Map.of());
    assertThat(config.keySet())
        .containsExactly(
            "name", "trainable", "axis", "momentum", "epsilon", "seed", "none", "inner");
  }

  @Test
  void write_roundTrips() {
    Map<String, Object> config = new LinkedHashMap<>();
    config.put("text", "\"\\\n\u0000é\ud83d\ude00");
    config.put("double", 0.009999999776482582);
    config.put("small", 2e-3);
    config.put("least", Double.MIN_VALUE);
    config.put("most", -Double.MAX_VALUE);
    config.put("minus", -0.0);
    config.put("whole", 3.0);
    config.put("long", Long.MIN_VALUE);
    config.put("none", null);
    config.put("no", false);
    config.put("list", new ArrayList<>(List.of(1L, List.of(), Map.of("k", "v"))));
    config.put("", Map.of());
    String json = ConfigJson.write(config);
    assertThat(ConfigJson.read(json)).isEqualTo(config);
    assertThat(json)
        .doesNotContain("\n")
        .contains("\"small\":0.002,", "\"whole\":3.0,", "\"none\":null,");
  }

  @Test
  void write_otherNumberTypes() {
    Map<String, Object> config = new LinkedHashMap<>();
    config.put("int", 1);
    config.put("short", (short) 2);
    config.put("byte", (byte) 3);
    config.put("float", 0.5f);
    assertThat(ConfigJson.write(config))
        .isEqualTo("{\"int\":1,\"short\":2,\"byte\":3,\"float\":0.5}");
    assertThat(ConfigJson.write(Map.of("float", 0.01f)))
        .isEqualTo("{\"float\":0.009999999776482582}");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{\"a\":{\"b\":[1,NaN]}} | configuration.a.b[1]: NaN is not a finite number",
        "{\"a\":Infinity} | configuration.a: Infinity is not a finite number",
        "{\"a\":-Infinity} | configuration.a: -Infinity is not a finite number",
        "{\"a\":1e999} | configuration.a: 1e999 is not a finite number",
        "{\"a\":9223372036854775808} | configuration.a: 9223372036854775808 is beyond a 64-bit integer",
        "{\"a\":1,\"b\":{\"c\":1,\"c\":1}} | configuration.b.c: this key is there twice",
        "{\"a\":null,\"a\":null} | configuration.a: this key is there twice",
        "{} {} | configuration: text after the JSON object: \"{\"",
        "{}1 | configuration: text after the JSON object: \"1\"",
        "[] | configuration: must be a JSON object, got \"[\"",
        "\"x\" | configuration: must be a JSON object, got \"x\"",
        "`` | configuration: must be a JSON object, got no text",
        "null | configuration: must be a JSON object, got \"null\""
      })
  void read_refuses(String json, String message) {
    assertThatThrownBy(() -> ConfigJson.read(json))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(message);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,}",
        "{\"a\":[1",
        "{a:1}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":nul}",
        "{\"a\":\"\n\"}",
        "{\"a\":1]",
        "{\"a\":.5}",
        "{} x",
        "/**/{}",
        "{\"a\":+1}",
        "{\"a\":\"\\ud800"
      })
  void read_refusesWhatIsNotJson(String json) {
    assertThatThrownBy(() -> ConfigJson.read(json))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageMatching("(?s)configuration: not valid JSON at line \\d+, column \\d+: .+");
  }

  @Test
  void depth_isLimitedBothWays() {
    String deepest = "{\"a\":".repeat(31) + "{}" + "}".repeat(31);
    assertThat(ConfigJson.write(ConfigJson.read(deepest))).isEqualTo(deepest);
    assertThatThrownBy(() -> ConfigJson.read("{\"a\":".repeat(32) + "{}" + "}".repeat(32)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("configuration" + ".a".repeat(32) + ": more than 32 levels deep, the limit");
    assertThatThrownBy(() -> ConfigJson.read("{\"a\":" + "[".repeat(100_000)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("configuration.a" + "[0]".repeat(31) + ": more than 32 levels deep, the limit");
    Map<String, Object> itself = new LinkedHashMap<>();
    itself.put("me", Collections.singletonList(itself));
    assertThatThrownBy(() -> ConfigJson.write(itself))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessageStartingWith("configuration.me[0].me[0]")
        .hasMessageEndingWith(": more than 32 levels deep, the limit");
  }

  @Test
  void write_refuses() {
    assertThatThrownBy(() -> ConfigJson.write(Map.of("a", Map.of("b", Double.NaN))))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("configuration.a.b: NaN is not a finite number");
    assertThatThrownBy(() -> ConfigJson.write(Map.of("a", List.of(Float.NEGATIVE_INFINITY))))
        .hasMessage("configuration.a[0]: -Infinity is not a finite number");
    assertThatThrownBy(() -> ConfigJson.write(Map.of("a", BigDecimal.ONE)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("configuration.a: a value of class java.math.BigDecimal has no JSON text");
    assertThatThrownBy(() -> ConfigJson.write(Map.of("a", Map.of(1, 2))))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("configuration.a: a key must be a string, got 1");
  }

  @Test
  void message_isShortAndPrintable() {
    assertThatThrownBy(() -> ConfigJson.read("{\"" + "k\\u001b".repeat(20_000) + "\":NaN}"))
        .isInstanceOf(IllegalArgumentException.class)
        .message()
        .contains("k\\u001bk")
        .hasSizeLessThan(400);
    assertThatThrownBy(() -> ConfigJson.read("{\"a\":" + "9".repeat(900) + "}"))
        .hasMessageEndingWith("9... is beyond a 64-bit integer")
        .message()
        .hasSizeLessThan(200);
  }

  @Test
  void read_limitsNumbersAndNames() {
    for (String json :
        new String[] {
          "{\"a\":" + "9".repeat(2000) + "}",
          "{\"a\":0." + "9".repeat(2000) + "}",
          "{\"" + "k".repeat(100_000) + "\":1}"
        }) {
      assertThatThrownBy(() -> ConfigJson.read(json))
          .isInstanceOf(IllegalArgumentException.class)
          .hasMessageStartingWith("configuration")
          .message()
          .hasSizeLessThan(400);
    }
  }
}
