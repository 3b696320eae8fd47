package io.github.syncbn4j.cli;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.List;
import picocli.CommandLine;

/** A command that ran in this process: its exit status and what it printed. */
record CommandRun(int status, String out, String err) {
  static CommandRun of(String... args) {
    StringWriter out = new StringWriter();
    StringWriter err = new StringWriter();
    CommandLine commandLine =
        Syncbn.commandLine().setOut(new PrintWriter(out)).setErr(new PrintWriter(err));
    int status = commandLine.execute(args);
    return new CommandRun(status, out.toString(), err.toString());
  }

  List<String> lines() {
    return out.lines().toList();
  }
}
