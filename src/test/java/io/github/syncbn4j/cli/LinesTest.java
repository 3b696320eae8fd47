package io.github.syncbn4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.NotDirectoryException;
import org.junit.jupiter.api.Test;

/** Exceptions as a line: those of files that say no more than the file, too. */
class LinesTest {
  @Test
  void message_saysFileAndReason() {
    assertThat(Lines.message(new AccessDeniedException("a"))).isEqualTo("a: no permission");
    assertThat(Lines.message(new FileSystemException("a", null, "No space left on device")))
        .isEqualTo("a: No space left on device");
    assertThat(Lines.message(new NotDirectoryException("a"))).isEqualTo("a: NotDirectoryException");
    assertThat(Lines.message(new IOException())).isEqualTo("IOException");
    assertThat(Lines.message(new IOException("a\nb"))).isEqualTo("a\\u000ab");
  }
}
