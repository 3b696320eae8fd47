package io.github.syncbn4j.cli.train;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.InputArchive;
import org.bytedeco.pytorch.StringTensorDict;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A training that was stopped and resumed, and one that was not. */
abstract class ResumeContract {
  private static final int REPLICAS = 2;

  @TempDir Path folder;
  private final boolean gpu;

  ResumeContract(boolean gpu) {
    this.gpu = gpu;
  }

  private JsonNode train(int epochs, String checkpoint, String resume) throws IOException {
    Path out = folder.resolve("out");
    TrainJob.Options options =
        new TrainJob.Options(
            null,
            gpu,
            REPLICAS,
            14, // images, which makes 50 steps an epoch
            epochs,
            true,
            true,
            5,
            null,
            out,
            folder.resolve(checkpoint),
            resume == null ? null : folder.resolve(resume),
            "test");
    StringWriter text = new StringWriter();
    new TrainJob(options).run(new PrintWriter(text));
    if (resume != null) {
      assertThat(text.toString())
          .contains("resumed: sync at step 50", "1 replica at step 50", "local at step 50");
    }
    return new ObjectMapper().readTree(out.resolve("train.json").toFile());
  }

  /** Parameters and buffers of one replica. */
  private Map<String, Tensor> network(String checkpoint, String run, int rank) {
    InputArchive archive = new InputArchive();
    archive.load_from(folder.resolve(checkpoint).resolve(run + ".pt").toString());
    InputArchive ofReplica = new InputArchive();
    archive.read("replica" + rank, ofReplica);
    DigitsNet network =
        new DigitsNet(
            Arrays.stream(DigitsNet.CHANNELS)
                .mapToObj(channels -> new BatchNorm2dImpl(new BatchNormOptions(channels)))
                .toList());
    network.load(ofReplica);
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    for (StringTensorDict named : List.of(network.named_parameters(), network.named_buffers())) {
      for (long i = 0; i < named.size(); i++) {
        tensors.put(named.get(i).key().getString(), new Tensor(named.get(i).value()));
      }
    }
    return tensors;
  }

  private void requireSameNetworks(String run, int rank) {
    Map<String, Tensor> straight = network("straight", run, rank);
    assertThat(straight).hasSize(3 + 3 * 5 + 2);
    Map<String, Tensor> resumed = network("stopped", run, rank);
    straight.forEach(
        (name, tensor) ->
            assertThat(resumed.get(name).equal(tensor)).as("%s of %s", name, run).isTrue());
  }

  @Test
  void resumedTraining_givesTheBitsOfOneThatNeverStopped() throws IOException {
    JsonNode straight = train(3, "straight", null);
    train(1, "stopped", null);
    JsonNode resumed = train(3, "stopped", "stopped");
    assertThat(straight.at("/sync/loss_by_step")).hasSize(150);
    assertThat(resumed.get("whole_batch_loss")).isEqualTo(straight.get("whole_batch_loss"));
    for (String run : List.of("sync", "local")) {
      for (String curve :
          List.of("loss_by_step", "test_accuracy_by_epoch", "test_accuracy_with_mean_statistics")) {
        assertThat(resumed.get(run).get(curve))
            .as("%s of %s", curve, run)
            .isEqualTo(straight.get(run).get(curve));
      }
    }
    requireSameNetworks("sync", 0);
    requireSameNetworks("1-replica", 0);
    requireSameNetworks("local", 0);
    requireSameNetworks("local", 1);
  }
}
