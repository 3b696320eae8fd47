package io.github.syncbn4j.cli.train;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.github.syncbn4j.cli.train.TrainingRun.Curves;

/** All numbers of a command as JSON. */
final class JsonReport {
  private final ObjectNode root = new ObjectMapper().createObjectNode();

  JsonReport(TrainJob.Options options, Setting setting, Results results) {
    root.put("format", "syncbn-train/1");
    root.put("version", options.version());
    root.put("device", options.gpu() ? "gpu" : "cpu");
    root.put("normalization_on", setting.normalizationOn());
    root.put("libtorch_on", setting.libtorch().where());
    root.put("libtorch_because", setting.libtorch().reason());
    root.put("replicas", options.replicas());
    root.put("batch", options.batch());
    root.put("epochs", options.epochs());
    root.put("steps_per_epoch", setting.stepsPerEpoch());
    root.put("seed", options.seed());
    root.put("learning_rate", ReplicaTrainer.LEARNING_RATE);
    root.put("data", setting.data());
    root.put("training_images", setting.trainingImages());
    root.put("test_images", setting.testImages());
    if (results.sync() != null) {
      add("sync", results.sync(), results.syncProof());
      root.set("whole_batch_loss", array(results.whole().loss()));
      Verdict verdict = results.verdict(options.replicas());
      root.put("proof", verdict.toString());
      root.put("proof_holds", verdict == Verdict.HOLDS);
    }
    if (results.local() != null) {
      add("local", results.local(), results.localProof());
    }
  }

  private void add(String name, Curves curves, Proof proof) {
    ObjectNode run = root.putObject(name);
    double[] accuracy = curves.accuracy();
    run.put("test_accuracy", accuracy[accuracy.length - 1]);
    run.put("test_accuracy_with_mean_statistics", curves.meanAccuracy());
    run.put("seconds", curves.seconds());
    if (proof != null) {
      ObjectNode facts = run.putObject("first_steps");
      facts.put("steps", Proof.STEPS);
      facts.put("first_loss", proof.firstLoss());
      facts.put("last_loss", proof.lastLoss());
      facts.put("halves", proof.halves());
      facts.put("distance_from_whole_batch", proof.distance());
      facts.put("is_whole_batch", proof.isWholeBatch());
    }
    run.set("test_accuracy_by_epoch", array(accuracy));
    run.set("loss_by_step", array(curves.loss()));
  }

  private ArrayNode array(double[] values) {
    ArrayNode array = root.arrayNode();
    for (double value : values) {
      array.add(value);
    }
    return array;
  }

  String text() {
    return root.toPrettyString() + "\n";
  }
}
