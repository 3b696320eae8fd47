import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.LayerState;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.state.Naming;
import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.StoredTensor;
import java.io.IOException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Gives layers the state of a Keras model, compares their inference with Keras' own, and writes
 * what Keras did as a recording for {@code syncbn replay}.
 */
class PortKeras {
  /** An input x, and what each layer of the model made of it; written by Keras. */
  static final Path KERAS = Path.of("src/test/resources/convert/model.expected.safetensors");

  /** What is of the layer's own in get_config(). */
  static final Map<String, String> CONFIGS =
      Map.of(
          "first", "{\"momentum\": 0.9, \"epsilon\": 1e-5}",
          "no_scale", "{\"scale\": false}",
          "neither", "{\"scale\": false, \"center\": false}");

  static final String CASE =
      """
      {"name": "first", "source": "Keras", "config": %s, "dtype": "float32", "replicas": 1,
       "steps": [{"training": false}], "tolerance": {"rtol": 1e-6, "atol": 1e-6}}
      """
          .formatted(CONFIGS.get("first"));

  /**
   * @param args the state that {@code syncbn convert} wrote; where the recording goes
   */
  public static void main(String... args) throws IOException {
    if (args.length != 2) {
      System.err.println("usage: PortKeras.java STATE RECORDING, see README.md");
      System.exit(2);
    }
    Path state = Path.of(args[0]);
    Map<String, StoredTensor> keras = Safetensors.read(KERAS).tensors();
    try (ReplicaGroup group = ReplicaGroup.cpus(2)) {
      Map<String, SyncBatchNormalization> layers = new LinkedHashMap<>();
      for (String name : new String[] {"first", "no_scale", "neither"}) {
        layers.put(name, SyncBatchNormalization.fromConfig(group, CONFIGS.get(name)).build(-1, 3));
      }
      LayerState.load(state, layers, Naming.SYNCBN4J); // into both replicas, or an exception
      layers.forEach(
          (name, layer) ->
              System.out.printf(
                  "%-8s within 1e-6 of Keras: %b%n",
                  name, difference(layer, keras.get("x"), keras.get(name + "/y")) < 1e-6));
    }
    Map<String, StoredTensor> ported = Safetensors.read(state).tensors();
    Map<String, StoredTensor> recording = new HashMap<>();
    for (String name : new String[] {"gamma", "beta", "moving_mean", "moving_variance"}) {
      recording.put("initial." + name, ported.get("first." + name));
      if (name.startsWith("moving_")) {
        recording.put("step.0." + name, ported.get("first." + name)); // which inference keeps
      }
    }
    recording.put("step.0.replica.0.x", keras.get("x"));
    recording.put("step.0.replica.0.y", keras.get("first/y"));
    Safetensors.write(
        Path.of(args[1]), recording, Map.of("format", "syncbn-replay/1", "case", CASE));
  }

  /** The largest, of what the second replica infers. */
  static double difference(SyncBatchNormalization layer, StoredTensor x, StoredTensor expected) {
    Replica replica = layer.group().replica(1);
    try (DeviceTensor y = replica.allocate(DType.FLOAT32, x.shape())) {
      y.copyFromHost(x.data());
      layer.infer(replica, y, y);
      float[] values = y.copyToHost();
      double largest = 0;
      for (int i = 0; i < values.length; i++) {
        float wanted = expected.data().getFloat(i * Float.BYTES);
        largest = Math.max(largest, Math.abs(values[i] - wanted));
      }
      return largest;
    }
  }
}
