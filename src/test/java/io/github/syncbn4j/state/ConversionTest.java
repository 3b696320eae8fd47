package io.github.syncbn4j.state;

import static io.github.syncbn4j.state.ConvertedFiles.count;
import static io.github.syncbn4j.state.ConvertedFiles.expected;
import static io.github.syncbn4j.state.ConvertedFiles.file;
import static io.github.syncbn4j.state.ConvertedFiles.floats;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Names, numbers and texts of one framework as another has them. */
class ConversionTest {
  private static final Path ANY = Path.of("any.safetensors");

  @TempDir Path folder;

  // ---------------------------------------------------------------------------- files of
  // frameworks

  @ParameterizedTest
  @CsvSource({
    "model.keras, model, 9",
    "model.h5, model, 9",
    "net.weights.h5, net, 11",
  })
  void kerasFile_hasTheVariablesOfItsLayers(String name, String model, int variables)
      throws IOException {
    Conversion made = ConvertedFiles.convert(file(name), Naming.KERAS);
    int compared = 0;
    for (Map.Entry<String, StoredTensor> one : expected(model).entrySet()) {
      if (one.getKey().contains("/") && !one.getKey().endsWith("/y")) {
        requireSame(made.tensors().get(one.getKey()), one.getValue(), one.getKey());
        compared++;
      }
    }
    assertThat(compared).isEqualTo(variables);
  }

  @Test
  void kerasConfiguration_becomesTexts_withTheMomentumOfTheNewValue() throws IOException {
    for (String name : List.of("model.keras", "model.h5")) {
      assertThat(ConvertedFiles.convert(file(name), Naming.PYTORCH).metadata())
          .containsEntry("format", "pt")
          .containsEntry("first.momentum", "0.1")
          .containsEntry("first.eps", "1.0E-5")
          .containsEntry("neither.momentum", "0.01");
    }
    assertThat(ConvertedFiles.convert(file("module.safetensors"), Naming.KERAS).metadata())
        .containsOnly(Map.entry("1/momentum", "0.8"), Map.entry("1/epsilon", "1e-05"));
  }

  @Test
  void pytorchToKerasAndBack_givesTheSameBits() throws IOException {
    for (Naming through : List.of(Naming.KERAS, Naming.DJL, Naming.SYNCBN4J)) {
      Safetensors module = Safetensors.read(file("module.safetensors"));
      Conversion there = ConvertedFiles.convert(file("module.safetensors"), through);
      assertThat(there.norms()).containsOnlyKeys("1", "2");
      Path between = folder.resolve(through + ".safetensors");
      Safetensors.write(between, there.tensors(), there.metadata());
      Conversion back = ConvertedFiles.convert(between, Naming.PYTORCH);
      Map<String, StoredTensor> tensors = new LinkedHashMap<>(back.tensors());
      if (through == Naming.DJL) { // where an affine=False has a gamma and a beta
        requireSame(tensors.remove("2.weight"), floats(1, 1, 1), "2.weight");
        requireSame(tensors.remove("2.bias"), floats(0, 0, 0), "2.bias");
      }
      assertThat(tensors).hasSameSizeAs(module.tensors()).containsKey("1.num_batches_tracked");
      module.tensors().forEach((name, tensor) -> requireSame(tensors.get(name), tensor, name));
      assertThat(back.metadata()).containsEntry("1.momentum", "0.2");
    }
  }

  @ParameterizedTest
  @CsvSource({"KERAS, /, gamma, moving_variance", "DJL, _, gamma, runningVar"})
  void namesAreTheFrameworks(Naming to, String separator, String gamma, String variance)
      throws IOException {
    Map<String, StoredTensor> tensors =
        ConvertedFiles.convert(file("module.safetensors"), to).tensors();
    assertThat(tensors)
        .containsKeys(
            "0.weight",
            "1" + separator + gamma,
            "1" + separator + variance,
            "1" + separator + "num_batches_tracked")
        .doesNotContainKeys("1.weight", "1.running_var");
  }

  private static void requireSame(StoredTensor tensor, StoredTensor other, String name) {
    assertThat(tensor).as(name).isNotNull();
    assertThat(tensor.toString()).as(name).isEqualTo(other.toString());
    assertThat(tensor.data()).as(name).isEqualTo(other.data());
  }

  // -------------------------------------------------------------------------------------
  // conversion

  private static Map<String, StoredTensor> module() {
    Map<String, StoredTensor> tensors = new LinkedHashMap<>();
    tensors.put("bn.weight", floats(1, 2));
    tensors.put("bn.bias", floats(3, Float.intBitsToFloat(0x7fc00123)));
    tensors.put("bn.running_mean", floats(5, 6));
    tensors.put("bn.running_var", floats(7, 8));
    tensors.put("bn.num_batches_tracked", count(Long.MAX_VALUE));
    tensors.put("fc.weight", floats(9));
    return tensors;
  }

  private static Conversion convert(
      Map<String, StoredTensor> tensors, Naming from, Naming to, OptionalLong elements)
      throws IOException {
    ModelFile file = new ModelFile(ANY, tensors, Map.of(), List.of());
    return Conversion.of(BatchNorms.of(file, from), to, elements);
  }

  @Test
  void variances_areConvertedWhereTheCountIsKnown_andBothWays() throws IOException {
    Map<String, StoredTensor> biased =
        convert(module(), Naming.PYTORCH, Naming.KERAS, OptionalLong.of(8)).tensors();
    assertThat(floats(biased.get("bn/moving_variance"))).containsExactly(7f * 7 / 8, 7);
    Map<String, StoredTensor> back =
        convert(biased, Naming.KERAS, Naming.DJL, OptionalLong.of(8)).tensors();
    assertThat(floats(back.get("bn_runningVar"))).containsExactly(7, 8);
    assertThat(
            floats(
                convert(module(), Naming.PYTORCH, Naming.DJL, OptionalLong.of(8))
                    .tensors()
                    .get("bn_runningVar")))
        .as("unbiased both")
        .containsExactly(7, 8);
  }

  /** A file of this library's says of which kind its variances are. */
  @Test
  void varianceOfAnotherKind_isSaid_andConvertedOnlyOnce() throws IOException {
    Conversion kept = convert(module(), Naming.PYTORCH, Naming.SYNCBN4J, OptionalLong.empty());
    assertThat(kept.metadata()).containsEntry("bn.running_variance", "unbiased");
    ModelFile own = new ModelFile(ANY, kept.tensors(), kept.metadata(), List.of());
    assertThat(own.naming()).isEqualTo(Naming.SYNCBN4J);
    assertThat(new ModelFile(ANY, kept.tensors(), Map.of(), List.of()).naming())
        .as("by its count of steps")
        .isEqualTo(Naming.SYNCBN4J);
    BatchNorms norms = BatchNorms.of(own, Naming.SYNCBN4J);
    assertThat(
            floats(
                Conversion.of(norms, Naming.PYTORCH, OptionalLong.of(8))
                    .tensors()
                    .get("bn.running_var")))
        .containsExactly(7, 8);
    assertThat(
            floats(
                Conversion.of(norms, Naming.KERAS, OptionalLong.of(8))
                    .tensors()
                    .get("bn/moving_variance")))
        .containsExactly(7f * 7 / 8, 7);
  }

  @Test
  void variancesOfHalfPrecision_areNotConverted() {
    Map<String, StoredTensor> tensors = module();
    tensors.put("bn.running_var", new StoredTensor("F16", new long[] {2}, ByteBuffer.allocate(4)));
    assertThatThrownBy(() -> convert(tensors, Naming.PYTORCH, Naming.KERAS, OptionalLong.of(8)))
        .hasMessage(
            "any.safetensors: \"bn.running_var\" is F16[2]: variances of F32 and F64 only are converted");
  }

  @Test
  void whatTheOtherAlwaysHas_isAdded() throws IOException {
    Map<String, StoredTensor> tensors = new LinkedHashMap<>();
    tensors.put("a/beta", floats(3, 4));
    tensors.put("a/moving_mean", floats(5, 6));
    tensors.put("a/moving_variance", floats(7, 8));
    tensors.put("b.moving_mean", floats(5, 6));
    tensors.put("b.moving_variance", floats(7, 8));
    Conversion made = convert(tensors, Naming.KERAS, Naming.PYTORCH, OptionalLong.empty());
    assertThat(made.added()).containsExactly("a.weight");
    assertThat(floats(made.tensors().get("a.weight"))).containsExactly(1, 1);
    assertThat(made.tensors().get("b.num_batches_tracked").data().getLong()).isZero();
    assertThat(made.tensors()).doesNotContainKey("b.weight");
    assertThat(convert(tensors, Naming.KERAS, Naming.DJL, OptionalLong.empty()).added())
        .containsExactly("a_gamma", "b_gamma", "b_beta");
  }

  @ParameterizedTest
  @CsvSource({
    "0.9, 0.1",
    "0.99, 0.01",
    "0.1, 0.9",
    "1.0E-5, 0.99999",
    "1, 0",
    "null, null",
    "1e999, 1e999",
  })
  void momentum_isOneMinusTheOthers_toTheDigit(String keras, String pytorch) {
    assertThat(Naming.PYTORCH.momentum(keras, Naming.KERAS)).isEqualTo(pytorch);
    assertThat(Naming.DJL.momentum(keras, Naming.KERAS)).isEqualTo(keras);
  }

  // -----------------------------------------------------------------------------------------
  // errors

  @Test
  void twoOfOneName_areRefused() {
    Map<String, StoredTensor> tensors = module();
    tensors.put("bn/gamma", floats(0, 0));
    assertThatThrownBy(() -> convert(tensors, Naming.PYTORCH, Naming.KERAS, OptionalLong.empty()))
        .hasMessage("any.safetensors: two would be named \"bn/gamma\": rename one first");
  }

  @Test
  void normWithoutItsVariance_orOfTwoShapes_isRefused() {
    Map<String, StoredTensor> halved = module();
    halved.remove("bn.running_var");
    assertThatThrownBy(() -> convert(halved, Naming.PYTORCH, Naming.KERAS, OptionalLong.empty()))
        .hasMessage("any.safetensors: \"bn.running_mean\" is there without \"bn.running_var\"");
    Map<String, StoredTensor> mixed = module();
    mixed.put("bn.bias", floats(1, 2, 3));
    assertThatThrownBy(() -> convert(mixed, Naming.PYTORCH, Naming.KERAS, OptionalLong.empty()))
        .hasMessage(
            "any.safetensors: \"bn.bias\" is F32[3], expected floating-point numbers of shape [2]");
    Map<String, StoredTensor> counted = module();
    counted.put("bn.num_batches_tracked", floats(1, 2));
    assertThatThrownBy(() -> convert(counted, Naming.PYTORCH, Naming.KERAS, OptionalLong.empty()))
        .hasMessage("any.safetensors: \"bn.num_batches_tracked\" is F32[2], expected one number");
  }

  @Test
  void namesOfNoFramework_ofSeveral_orOfAnother_areRefused() throws IOException {
    ModelFile none = new ModelFile(ANY, Map.of("a", floats(1)), Map.of(), List.of());
    assertThatThrownBy(none::naming)
        .hasMessage(
            "any.safetensors: no batch normalization under the names of any framework (nothing ends in moving_mean, running_mean, runningMean)");
    Map<String, StoredTensor> both = module();
    both.put("other/moving_mean", floats(1));
    assertThatThrownBy(new ModelFile(ANY, both, Map.of(), List.of())::naming)
        .hasMessage(
            "any.safetensors: batch normalizations under the names of several frameworks, say which are meant: [keras, pytorch]");
    assertThatThrownBy(() -> convert(module(), Naming.DJL, Naming.KERAS, OptionalLong.empty()))
        .hasMessage(
            "any.safetensors: no batch normalization under djl's names (runningMean, runningVar)");
  }
}
