package io.github.syncbn4j.cli.bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.List;

/** All results as JSON: a list with an object for each. */
final class JsonReport {
  private JsonReport() {}

  static String text(List<Result> results) {
    ArrayNode list = new ObjectMapper().createArrayNode();
    results.forEach(result -> add(list.addObject(), result));
    return list.toPrettyString() + "\n";
  }

  private static void add(ObjectNode node, Result result) {
    Problem problem = result.problem();
    node.put("suite", problem.suite());
    node.put("layer", problem.layer());
    ArrayNode shape = node.putArray("shape");
    for (long size : problem.shape()) {
      shape.add(size);
    }
    node.put("layout", problem.layout());
    node.put("dtype", problem.dtypeText());
    node.put("pass", result.pass().text());
    node.put("replicas", result.replicas());
    node.put("threads", result.threads());
    node.put("device", result.device().name());
    node.put("cold", problem.cold());
    node.put("impl", result.impl());
    node.put("median_us", result.times().median());
    node.put("p10_us", result.times().p10());
    node.put("p90_us", result.times().p90());
    node.put("copies", result.copies());
    node.put("max_error", result.maxError());
  }
}
