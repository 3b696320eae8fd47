package io.github.syncbn4j.spec;

import static org.assertj.core.api.Assertions.assertThat;

import java.lang.reflect.Method;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** That every conformance case of the specification has a test, or a reason for none. */
class SpecificationCoverageTest {
  private static final int LAST_CASE = 83;

  private static final List<Class<?>> CONTRACTS =
      List.of(
          StatisticsCasesContract.class,
          RenormCasesContract.class,
          ConfigurationCasesContract.class);

  /** Cases that ask for nothing that this library could do. */
  private static final Map<Integer, String> WITHOUT_TEST =
      Map.of(67, "training is a Java boolean: there is no None, 0, 1 or 2, and no learning phase");

  @Test
  void everyCase_hasATestOrAReason() {
    Map<Integer, String> covered = new TreeMap<>();
    Pattern number = Pattern.compile("t(\\d\\d)_.*");
    for (Class<?> contract : CONTRACTS) {
      for (Method method : contract.getDeclaredMethods()) {
        Matcher matcher = number.matcher(method.getName());
        if (matcher.matches()) {
          covered.put(Integer.parseInt(matcher.group(1)), method.getName());
        }
      }
    }
    WITHOUT_TEST.forEach(
        (t, reason) -> {
          System.out.printf("T%02d has no test: %s%n", t, reason);
          assertThat(covered.put(t, reason)).as("T%02d", t).isNull();
        });
    assertThat(covered.keySet())
        .containsExactlyElementsOf(IntStream.rangeClosed(1, LAST_CASE).boxed().toList());
  }
}
