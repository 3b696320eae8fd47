package io.github.syncbn4j.state;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.fail;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.Arrays;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Files that are damaged or made to harm: one kind of exception, with the value and the limit,
 * soon.
 */
class SafetensorsHostileTest {
  /** Processor time: what the machine does besides is not the reader's fault. */
  private static final Duration SOON = Duration.ofSeconds(1);

  private static final Duration FUZZING = Duration.ofSeconds(5);
  private static final Duration HANGS = Duration.ofSeconds(30);
  private static final String ONE = "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}";

  @TempDir Path folder;

  /** A name, a header, bytes of data, what the message has to hold. */
  static Stream<Arguments> headers() {
    return Stream.of(
        arguments("header is an array", "[]", 0, "must begin with '{'"),
        arguments("header begins with blanks", " {}", 0, "must begin with '{'"),
        arguments("header is not JSON", "{\"a\"", 0, "not valid JSON"),
        arguments("header ends within a tensor", "{\"a\":{\"dtype\":\"U8\"", 1, "not valid JSON"),
        arguments("text after the header", "{} {}", 0, "text after its JSON object"),
        arguments("zero bytes after the header", "{}\0\0", 0, "not valid JSON"),
        arguments("comment", "{/*x*/}", 0, "not valid JSON"),
        arguments("deep array", "{\"a\":" + "[".repeat(100_000), 0, "\"a\" must be an object"),
        arguments(
            "deep array in the metadata",
            "{\"__metadata__\":{\"a\":" + "[".repeat(100_000),
            0,
            "__metadata__ \"a\" must be a string"),
        arguments(
            "deep array in a shape",
            "{\"a\":{\"dtype\":\"U8\",\"shape\":" + "[".repeat(100_000),
            0,
            "\"shape\" must be an array of integers"),
        arguments(
            "metadata is a number", "{\"__metadata__\":5}", 0, "__metadata__ must be an object"),
        arguments(
            "metadata is null", "{\"__metadata__\":null}", 0, "__metadata__ must be an object"),
        arguments(
            "metadata value is a number",
            "{\"__metadata__\":{\"k\":1}}",
            0,
            "__metadata__ \"k\" must be a string, found \"1\""),
        arguments(
            "metadata twice",
            "{\"__metadata__\":{},\"__metadata__\":{}}",
            0,
            "__metadata__ is there twice"),
        arguments(
            "metadata key twice",
            "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}",
            0,
            "__metadata__ \"k\" is there twice"),
        arguments("tensor is null", "{\"a\":null}", 0, "tensor \"a\" must be an object"),
        arguments(
            "tensor twice", "{\"a\":" + ONE + ",\"a\":" + ONE + "}", 1, "\"a\" is there twice"),
        arguments("unknown key", tensor("\"size\":1"), 1, "\"size\" is no key of a tensor"),
        arguments(
            "key twice",
            "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}",
            1,
            "\"dtype\" is there twice"),
        arguments("no dtype", tensor("\"shape\":[1],\"data_offsets\":[0,1]"), 1, "has no dtype"),
        arguments("no shape", tensor("\"dtype\":\"U8\",\"data_offsets\":[0,1]"), 1, "has no shape"),
        arguments("no offsets", tensor("\"dtype\":\"U8\",\"shape\":[1]"), 1, "has no data_offsets"),
        arguments("unknown dtype", tensor("F31", "[1]", "[0,4]"), 4, "unknown dtype \"F31\""),
        arguments(
            "long dtype", tensor("F".repeat(1_000_000), "[1]", "[0,4]"), 4, "unknown dtype \"FFF"),
        arguments(
            "dtype is a number",
            "{\"a\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,1]}}",
            1,
            "\"dtype\" must be a string, found \"5\""),
        arguments(
            "negative dimension", tensor("U8", "[-1]", "[0,1]"), 1, "has -1, allowed is 0 to 2^63"),
        arguments("fractional dimension", tensor("U8", "[1.0]", "[0,1]"), 1, "found \"1.0\""),
        arguments(
            "dimension is a text", tensor("U8", "[\"1\"]", "[0,1]"), 1, "an array of integers"),
        arguments(
            "dimension of 2^63",
            tensor("U8", "[9223372036854775808]", "[0,1]"),
            1,
            "has 9223372036854775808, allowed is 0 to 2^63 - 1"),
        arguments(
            "dimension of many digits",
            tensor("U8", "[" + "9".repeat(1_000_000) + "]", "[0,1]"),
            1,
            "not valid JSON"),
        arguments(
            "shape overflows to 0 bytes",
            tensor("U8", "[4294967296,4294967296]", "[0,0]"),
            0,
            "more than 2147483647 bytes"),
        arguments(
            "shape overflows to 4 bytes",
            tensor("F32", "[9223372036854775807,9223372036854775807]", "[0,4]"),
            4,
            "more than 2147483647 bytes"),
        arguments(
            "more dimensions than the limit",
            tensor("U8", "[" + "1,".repeat(32) + "1]", "[0,1]"),
            1,
            "more than 32 numbers"),
        arguments(
            "shape and bytes differ",
            tensor("F32", "[3]", "[0,11]"),
            11,
            "11 bytes, dtype and shape make 12"),
        arguments(
            "empty shape and bytes differ",
            tensor("F32", "[0,9]", "[0,4]"),
            4,
            "4 bytes, dtype and shape make 0"),
        arguments(
            "negative offset", tensor("U8", "[1]", "[-1,0]"), 1, "has -1, allowed is 0 to 2^63"),
        arguments("fractional offset", tensor("U8", "[1]", "[0,1.5]"), 1, "found \"1.5\""),
        arguments("offset with exponent", tensor("U8", "[1]", "[0,1e0]"), 1, "found \"1e0\""),
        arguments("offset is NaN", tensor("U8", "[1]", "[0,NaN]"), 1, "not valid JSON"),
        arguments("offset is infinite", tensor("U8", "[1]", "[0,1e999]"), 1, "found \"1e999\""),
        arguments("one offset", tensor("U8", "[1]", "[1]"), 1, "must be two numbers, not 1"),
        arguments("three offsets", tensor("U8", "[1]", "[0,1,2]"), 1, "more than 2 numbers"),
        arguments(
            "end before begin",
            tensor("U8", "[1]", "[1,0]"),
            1,
            "[1, 0]: the end is before the begin"),
        arguments(
            "offsets beyond the file",
            tensor("U8", "[2]", "[0,2]"),
            1,
            "the file has 1 bytes of data"),
        arguments(
            "offsets of 2^63 - 1",
            tensor("U8", "[1]", "[9223372036854775806,9223372036854775807]"),
            1,
            "the file has 1 bytes of data"),
        arguments(
            "trailing bytes",
            tensor("U8", "[1]", "[0,1]"),
            2,
            "2 bytes of data, but the tensors end at 1"),
        arguments("data but no tensors", "{}", 1, "1 bytes of data, but the tensors end at 0"),
        arguments(
            "gap at the begin",
            tensor("U8", "[1]", "[1,2]"),
            2,
            "the header ends at 0: there is a gap"),
        arguments(
            "gap",
            "{\"a\":" + ONE + ",\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
            3,
            "\"b\" begins at byte 2 of the data, but tensor \"a\" ends at 1: there is a gap"),
        arguments(
            "overlap",
            "{\"a\":" + ONE + ",\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
            2,
            "\"b\" begins at byte 0 of the data, but tensor \"a\" ends at 1: they overlap"),
        arguments("line feed in a name", "{\"a\\nb\":5}", 0, "tensor \"a\\u000ab\""));
  }

  private static String tensor(String dtype, String shape, String offsets) {
    return tensor(
        "\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":%s".formatted(dtype, shape, offsets));
  }

  private static String tensor(String members) {
    return "{\"a\":{" + members + "}}";
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("headers")
  void hostileHeader_isRefused(String name, String header, int dataBytes, String message)
      throws IOException {
    refused(write(folder.resolve("bad"), header, new byte[dataBytes]), message);
  }

  @Test
  void emptyFile_isRefused() throws IOException {
    refused(Files.createFile(folder.resolve("bad")), "0 bytes, a header needs at least 8");
  }

  @Test
  void truncatedLength_isRefused() throws IOException {
    refused(Files.write(folder.resolve("bad"), new byte[7]), "7 bytes, a header needs at least 8");
  }

  @Test
  void headerLength_beyondTheLimit_isRefused() throws IOException {
    for (long length : new long[] {Long.MIN_VALUE, -1, Long.MAX_VALUE, 100_000_001}) {
      refused(
          withLength(length),
          "header of " + Long.toUnsignedString(length) + " bytes, the limit is 100000000");
    }
  }

  @Test
  void headerLength_beyondTheFile_isRefused() throws IOException {
    refused(withLength(100_000_000), "header of 100000000 bytes in a file of 10");
    refused(withLength(3), "header of 3 bytes in a file of 10");
  }

  @Test
  void headerLength_zero_isRefused() throws IOException {
    refused(withLength(0), "must begin with '{'");
  }

  @Test
  void headerOfManyMetadataTexts_isRefused() throws IOException {
    StringBuilder header = new StringBuilder("{\"__metadata__\":{\"k\":\"\"");
    for (int i = 0; i <= 1 << 16; i++) {
      header.append(",\"").append(i).append("\":\"\"");
    }
    refused(write(folder.resolve("bad"), header + "}}", new byte[0]), "more than 65536 texts");
  }

  @Test
  void headerOfManyTensors_isRefused() throws IOException {
    StringBuilder header = new StringBuilder("{\"__metadata__\":{}");
    for (int i = 0; i <= 1 << 16; i++) {
      header
          .append(",\"")
          .append(i)
          .append("\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}");
    }
    refused(write(folder.resolve("bad"), header + "}", new byte[0]), "more than 65536 tensors");
  }

  @Test
  void tensorBeyondTheLimit_isRefused() throws IOException {
    long bytes = StoredTensor.MAX_BYTES + 1;
    Path file =
        write(
            folder.resolve("bad"),
            tensor("U8", "[" + bytes + "]", "[0," + bytes + "]"),
            new byte[0]);
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      channel.write(ByteBuffer.allocate(1), channel.size() + bytes - 1); // sparse
    }
    refused(file, "shape [2147483648] of U8 takes more than 2147483647 bytes");
  }

  @Test
  void longName_isRefused() throws IOException {
    refused(
        write(folder.resolve("bad"), "{\"" + "n".repeat(10_000_000) + "\":5}", new byte[0]),
        "not valid JSON: Name length");
  }

  @Test
  void headerNotUtf8_isRefused() throws IOException {
    byte[] header = "{\"__metadata__\":{\"k\":\"?\"}}".getBytes(StandardCharsets.ISO_8859_1);
    header[header.length - 4] = (byte) 0xff;
    refused(write(folder.resolve("bad"), header, new byte[0]), "not UTF-8");
  }

  @Test
  void headerUtf16_isRefused() throws IOException {
    byte[] header = "{}".getBytes(StandardCharsets.UTF_16LE);
    refused(write(folder.resolve("bad"), header, new byte[0]), "not valid JSON");
  }

  @Test
  void noRegularFile_isRefused() {
    refused(folder, "not a regular file");
    refused(Path.of("/dev/zero"), "not a regular file");
  }

  @Test
  void missingFile_isAnOrdinaryError() {
    assertThatThrownBy(() -> Safetensors.read(folder.resolve("none")))
        .isInstanceOf(NoSuchFileException.class)
        .hasMessageContaining("no such file");
  }

  /** Flipped bits, changed bytes and truncations of a real file: it reads, or it is refused. */
  @Test
  void damagedFile_readsOrIsRefused() throws IOException {
    long seed = Long.getLong("syncbn.seed", System.nanoTime());
    System.out.println("SafetensorsHostileTest: -Dsyncbn.seed=" + seed);
    SplittableRandom random = new SplittableRandom(seed);
    byte[] good =
        Files.readAllBytes(SafetensorsTest.REPLAY.resolve("dense-2-replicas.safetensors"));
    int header = 8 + (int) ByteBuffer.wrap(good).order(ByteOrder.LITTLE_ENDIAN).getLong();
    Path file = folder.resolve("damaged");
    int refused = 0;
    int read = 0;
    long touched = 0;
    Duration begin = processorTime();
    for (int i = 0; i < 3000; i++) {
      byte[] bytes = damage(random, good, header);
      Files.deleteIfExists(file); // a file system flushes one that is overwritten, which takes long
      Files.write(file, bytes);
      try {
        for (StoredTensor tensor : Safetensors.read(file).tensors().values()) {
          touched += tensor.data().hashCode();
        }
        read++;
      } catch (SafetensorsException e) {
        refused++;
      } catch (Exception | Error e) {
        fail("round %d of seed %d".formatted(i, seed), e);
      }
    }
    assertThat(processorTime().minus(begin)).isLessThan(FUZZING);
    assertThat(touched).as("sum over what was read").isNotZero();
    assertThat(refused).isGreaterThan(1000);
    assertThat(read).isGreaterThan(100);
  }

  private static byte[] damage(SplittableRandom random, byte[] good, int header) {
    int kind = random.nextInt(8);
    if (kind == 0) {
      return Arrays.copyOf(good, random.nextInt(good.length));
    }
    byte[] bytes = good.clone();
    int within = kind == 1 ? good.length : kind == 2 ? Long.BYTES : header;
    String interesting = "0123456789-.,:[]{}\"\\eE nul";
    for (int changes = 1 + random.nextInt(3); changes > 0; changes--) {
      int at = random.nextInt(within);
      switch (random.nextInt(3)) {
        case 0 -> bytes[at] ^= (byte) (1 << random.nextInt(8));
        case 1 -> bytes[at] = (byte) random.nextInt(256);
        default -> bytes[at] = (byte) interesting.charAt(random.nextInt(interesting.length()));
      }
    }
    return bytes;
  }

  private Path withLength(long length) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(10).order(ByteOrder.LITTLE_ENDIAN);
    bytes.putLong(length).put((byte) '{').put((byte) '}');
    return Files.write(folder.resolve("bad"), bytes.array());
  }

  private static void refused(Path file, String message) {
    assertTimeoutPreemptively(
        HANGS,
        () -> {
          Duration begin = processorTime();
          assertThatThrownBy(() -> Safetensors.read(file))
              .isInstanceOf(SafetensorsException.class)
              .hasMessageStartingWith(file + ": ")
              .hasMessageContaining(message)
              .satisfies(e -> assertThat(e.getMessage()).hasSizeLessThan(1000));
          assertThat(processorTime().minus(begin)).isLessThan(SOON);
        });
  }

  private static Duration processorTime() {
    return Duration.ofNanos(ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime());
  }

  static Path write(Path file, String header, byte[] data) throws IOException {
    return write(file, header.getBytes(StandardCharsets.UTF_8), data);
  }

  private static Path write(Path file, byte[] header, byte[] data) throws IOException {
    ByteBuffer bytes =
        ByteBuffer.allocate(8 + header.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
    return Files.write(file, bytes.putLong(header.length).put(header).put(data).array());
  }
}
