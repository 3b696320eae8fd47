package io.github.syncbn4j.cli;

import io.github.syncbn4j.device.CollectiveException;
import io.github.syncbn4j.device.DeviceException;
import io.github.syncbn4j.device.DeviceUnavailableException;
import java.io.IOException;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExecutionException;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.RunLast;
import picocli.CommandLine.ScopeType;
import picocli.CommandLine.Spec;

/**
 * The {@code syncbn} command. What can be expected to go wrong is one line on stderr and exit
 * status 1; wrong usage is exit status 2. Stack traces come with {@code --verbose} or {@code
 * -Dsyncbn.debug}.
 */
@Command(
    name = "syncbn",
    description =
        "Synchronized batch normalization across the GPUs of a node: trains with it, times it, looks at it and checks it, and ports models.",
    subcommands = {
      TrainCommand.class,
      BenchCommand.class,
      ReplayCommand.class,
      ConvertCommand.class,
      InfoCommand.class,
      DoctorCommand.class
    },
    footer = {
      "",
      "scripts/syncbn run FILE.java [ARGUMENT...] runs a program in one file, with the library on its"
          + " class path."
    },
    versionProvider = BuildInfo.class,
    mixinStandardHelpOptions = true,
    scope = ScopeType.INHERIT,
    synopsisSubcommandLabel = "COMMAND")
public final class Syncbn implements Runnable {
  private static final int FAILED = 1;
  private static final int WRONG_USAGE = 2;

  @Option(
      names = "--verbose",
      scope = ScopeType.INHERIT,
      description = "Show the stack trace of an error.")
  private boolean verbose;

  @Spec private CommandSpec spec;

  private Syncbn() {}

  /** Runs a command and ends the JVM with its exit status. */
  public static void main(String[] args) {
    System.exit(commandLine().execute(args));
  }

  /** A new command line, for {@link CommandLine#execute}. */
  static CommandLine commandLine() {
    Syncbn syncbn = new Syncbn();
    return Numbers.registerIn(new CommandLine(syncbn))
        .setExpandAtFiles(false)
        .setExecutionStrategy(Syncbn::run)
        .setParameterExceptionHandler(Syncbn::reportUsage)
        .setExecutionExceptionHandler((e, commandLine, parsed) -> syncbn.report(e, commandLine));
  }

  @Override
  public void run() {
    throw new CommandLine.ParameterException(spec.commandLine(), "a command is missing");
  }

  /**
   * A native library that cannot be loaded and memory that is not there come as errors, which
   * picocli lets pass.
   */
  private static int run(ParseResult parsed) {
    try {
      return new RunLast().execute(parsed);
    } catch (LinkageError | OutOfMemoryError e) {
      throw new ExecutionException(parsed.commandSpec().commandLine(), e.toString(), e);
    }
  }

  private static int reportUsage(CommandLine.ParameterException e, String[] args) {
    CommandLine commandLine = e.getCommandLine();
    String name = commandLine.getCommandSpec().qualifiedName();
    commandLine.getErr().println("syncbn: %s (see %s --help)".formatted(Lines.message(e), name));
    commandLine.getErr().flush();
    return WRONG_USAGE;
  }

  private int report(Exception e, CommandLine commandLine) {
    Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
    String message =
        isExpected(cause) ? expected(cause) : "internal error: " + Lines.one(cause.toString());
    commandLine.getErr().println("syncbn: " + message);
    if (verbose || System.getProperty("syncbn.debug") != null) {
      cause.printStackTrace(commandLine.getErr());
    }
    commandLine.getErr().flush();
    return FAILED;
  }

  private static boolean isExpected(Throwable e) {
    return e instanceof IOException
        || e instanceof DeviceUnavailableException
        || e instanceof DeviceException
        || e instanceof CollectiveException
        || e instanceof LinkageError
        || e instanceof OutOfMemoryError;
  }

  private static String expected(Throwable e) {
    boolean kindSaysMore = e instanceof LinkageError || e instanceof OutOfMemoryError;
    return kindSaysMore ? e.getClass().getSimpleName() + ": " + Lines.message(e) : Lines.message(e);
  }
}
