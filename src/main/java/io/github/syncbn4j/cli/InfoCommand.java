package io.github.syncbn4j.cli;

import java.io.IOException;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Spec;

/** {@code syncbn info}: the report alone, for programs. */
@Command(
    name = "info",
    description =
        "Shows version, devices, libraries and where they came from, and why something is missing.")
final class InfoCommand implements Callable<Integer> {
  @Spec private CommandSpec spec;

  @Override
  public Integer call() throws IOException {
    new MachineReport(spec.commandLine().getOut()).print();
    return 0;
  }
}
