package io.github.syncbn4j.cli;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.Properties;
import picocli.CommandLine.IVersionProvider;

/** Version and commit of this build, from {@code build.properties}, which Maven fills in. */
final class BuildInfo implements IVersionProvider {
  private final Properties properties = new Properties();

  BuildInfo() {
    try (InputStream in = BuildInfo.class.getResourceAsStream("build.properties")) {
      properties.load(in);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** As in {@code 1.2.0 (commit 0123abc)}; without a commit where the build had none. */
  String version() {
    String commit = properties.getProperty("commit", "");
    return properties.getProperty("version") + (commit.isEmpty() ? "" : " (commit " + commit + ")");
  }

  @Override
  public String[] getVersion() {
    return new String[] {"syncbn4j " + version()};
  }
}
