package io.github.syncbn4j.cli;

import io.github.syncbn4j.state.BatchNorms;
import io.github.syncbn4j.state.Conversion;
import io.github.syncbn4j.state.ModelFile;
import io.github.syncbn4j.state.Naming;
import io.github.syncbn4j.state.Safetensors;
import io.github.syncbn4j.state.StateException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;
import picocli.CommandLine.TypeConversionException;

/** {@code syncbn convert}: a model's batch normalizations under another framework's names. */
@Command(
    name = "convert",
    description = {
      "Renames the batch normalizations in a model's file to what another framework calls them, bit"
          + " for bit: weight, bias, running_mean, running_var (pytorch), gamma, beta, moving_mean,"
          + " moving_variance (keras, syncbn4j), runningMean, runningVar (djl). Momentum and"
          + " epsilon, where the file has them, become texts in the other's sense, and are printed:"
          + " whoever loads the file has to build the layers with them.",
      "",
      "All other tensors are copied as they are, under their names. What safetensors cannot hold is"
          + " left out and listed."
    },
    footer = {"", "Exit status: 0 if OUT is written, 1 if not, 2 for wrong usage."})
final class ConvertCommand implements Callable<Integer> {
  private static final String SUFFIX = ".safetensors";
  private static final String FRAMEWORKS = "pytorch|keras|djl|syncbn4j";

  /** The most names of a kind that are listed. */
  private static final int MOST_LISTED = 20;

  /** Names in lower case, as they are printed. */
  static final class NamingConverter implements ITypeConverter<Naming> {
    @Override
    public Naming convert(String value) {
      return Arrays.stream(Naming.values())
          .filter(naming -> naming.toString().equals(value))
          .findFirst()
          .orElseThrow(
              () ->
                  new TypeConversionException(
                      "expected one of %s but was '%s'"
                          .formatted(Arrays.toString(Naming.values()), value)));
    }
  }

  @Parameters(
      index = "0",
      paramLabel = "IN",
      description = "A .safetensors file, or Keras' .weights.h5, .keras or .h5.")
  private Path in;

  @Parameters(index = "1", paramLabel = "OUT", description = "The .safetensors file to write.")
  private Path out;

  @Option(
      names = "--from",
      paramLabel = FRAMEWORKS,
      converter = NamingConverter.class,
      description = "Whose names IN has. Default: those under which it has batch normalizations.")
  private Naming from;

  @Option(
      names = "--to",
      paramLabel = FRAMEWORKS,
      converter = NamingConverter.class,
      defaultValue = "syncbn4j",
      description = "Whose names OUT gets. Default: syncbn4j.")
  private Naming to;

  @Option(
      names = "--elements",
      paramLabel = "N",
      description =
          "How many values a channel had in each training batch (images x height x width, over all"
              + " replicas). Running variances of pytorch and djl are n / (n - 1) times those of"
              + " keras and syncbn4j: with N they are converted, without it they stay as they are.")
  private Long elements;

  @Option(names = "--overwrite", description = "Replace OUT if it is there.")
  private boolean overwrite;

  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws IOException {
    requireUsable();
    ModelFile file = ModelFile.read(in);
    BatchNorms found = BatchNorms.of(file, from == null ? file.naming() : from);
    Conversion made =
        Conversion.of(
            found, to, elements == null ? OptionalLong.empty() : OptionalLong.of(elements));
    try {
      Safetensors.write(out, made.tensors(), made.metadata());
    } catch (IllegalArgumentException e) {
      throw new StateException(out, e.getMessage(), e);
    }
    report(file, found, made);
    return 0;
  }

  private void requireUsable() throws IOException {
    if (elements != null && elements < 2) {
      throw refused("--elements is %d, a variance needs 2 or more".formatted(elements));
    }
    if (!out.toString().endsWith(SUFFIX)) {
      throw refused("OUT must end in %s, which is what is written: %s".formatted(SUFFIX, out));
    }
    if (!Files.exists(out, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    if (Files.exists(in) && Files.exists(out) && Files.isSameFile(in, out)) {
      throw refused("OUT is IN: " + out);
    }
    if (Files.isDirectory(out)) {
      throw refused("OUT is a directory: " + out);
    }
    if (!overwrite) {
      throw refused("%s is there already: --overwrite replaces it".formatted(out));
    }
  }

  private ParameterException refused(String reason) {
    return new ParameterException(spec.commandLine(), reason);
  }

  private void report(ModelFile file, BatchNorms found, Conversion made) {
    PrintWriter stdout = spec.commandLine().getOut();
    Naming source = found.naming();
    stdout.println(
        "%s: %d batch norm(s) from %s to %s, %d other tensor(s) as they were"
            .formatted(out, made.norms().size(), source, to, found.others().size()));
    list(
        stdout,
        "",
        made.norms().entrySet().stream()
            .map(norm -> described(norm.getKey(), norm.getValue()))
            .toList());
    list(stdout, "added, as %s always has it: ".formatted(to), made.added());
    list(stdout, "left out: ", file.leftOut());
    if (made.norms().values().stream().anyMatch(options -> !options.isEmpty())) {
      stdout.println("build the layers with these options: loading does not set them");
    }
    if (!made.ofOtherKind().isEmpty()) {
      stdout.println(
          elements == null
              ? "running variances as they were (%s's are n / (n - 1) times %s's: --elements N converts them)"
                  .formatted(to.unbiased() ? to : source, to.unbiased() ? source : to)
              : "running variances converted for n = " + elements);
    } else if (elements != null) {
      stdout.println("running variances as they were: they are of %s's kind".formatted(to));
    }
    stdout.flush();
  }

  private static String described(String prefix, Map<String, String> options) {
    String name = prefix.isEmpty() ? "(no prefix)" : prefix;
    return options.entrySet().stream()
        .map(option -> option.getKey() + " " + Lines.shortened(option.getValue()))
        .collect(Collectors.joining(", ", options.isEmpty() ? name : name + ": ", ""));
  }

  private static void list(PrintWriter stdout, String what, List<String> names) {
    names.stream()
        .limit(MOST_LISTED)
        .forEach(name -> stdout.println("  " + what + Lines.one(name)));
    if (names.size() > MOST_LISTED) {
      stdout.println("  %s%d more".formatted(what, names.size() - MOST_LISTED));
    }
  }
}
