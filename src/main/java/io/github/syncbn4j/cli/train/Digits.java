package io.github.syncbn4j.cli.train;

import java.io.BufferedInputStream;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.zip.GZIPInputStream;
import org.bytedeco.pytorch.Tensor;

/**
 * The images: one a row, 64 pixels of 8 x 8 (integers 0 to 16), then the class 0 to 9, with commas
 * between them.
 */
final class Digits {
  static final int SIDE = 8;
  static final int CLASSES = 10;

  private static final String BUILT_IN = "digits.csv.gz";
  private static final int PIXELS = SIDE * SIDE;
  private static final int BRIGHTEST = 16;
  private static final int MOST = 200_000;
  private static final int LONGEST_VALUE = 20;

  private final String name;
  private final List<byte[]> rows;

  private Digits(String name, List<byte[]> rows) {
    this.name = name;
    this.rows = rows;
  }

  /** 1,797 handwritten digits of the UCI Machine Learning Repository; see NOTICE. */
  static Digits builtIn() throws IOException {
    try (InputStream in = Digits.class.getResourceAsStream(BUILT_IN)) {
      return new Digits("built-in digits", parse(in, BUILT_IN));
    }
  }

  /**
   * Reads a file, compressed with gzip or not.
   *
   * @throws IOException with file, line and value, for anything that is not such images
   */
  static Digits read(Path file) throws IOException {
    try (InputStream in = Files.newInputStream(file)) {
      return new Digits(file.toString(), parse(in, file.toString()));
    } catch (FileSystemException e) {
      throw e;
    } catch (IOException e) {
      String message = e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
      throw message.startsWith(file.toString()) ? e : new IOException(file + ": " + message, e);
    }
  }

  private static List<byte[]> parse(InputStream source, String name) throws IOException {
    List<byte[]> rows = new ArrayList<>();
    InputStream in = new BufferedInputStream(source);
    in.mark(2);
    boolean compressed = in.read() == 0x1f && in.read() == 0x8b;
    in.reset();
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(
                compressed ? new GZIPInputStream(in) : in, StandardCharsets.US_ASCII))) {
      boolean blank = false; // which at the end is nothing
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        String where = name + " line " + (rows.size() + 1);
        if (line.isBlank()) {
          blank = true;
        } else if (blank) {
          throw new IOException(where + " is blank");
        } else if (rows.size() == MOST) {
          throw new IOException("%s has more than %d rows".formatted(name, MOST));
        } else {
          rows.add(row(line, where));
        }
      }
    }
    return rows;
  }

  private static byte[] row(String line, String where) throws IOException {
    String[] values = line.split(",", -1);
    if (values.length != PIXELS + 1) {
      throw new IOException(
          "%s has %d value(s), a row has %d pixels and a class"
              .formatted(where, values.length, PIXELS));
    }
    byte[] row = new byte[PIXELS + 1];
    for (int i = 0; i < row.length; i++) {
      int largest = i < PIXELS ? BRIGHTEST : CLASSES - 1;
      row[i] = (byte) integer(values[i], largest);
      if (row[i] < 0) {
        throw new IOException(
            "%s: %s must be an integer from 0 to %d, not \"%s\""
                .formatted(
                    where, i < PIXELS ? "pixel " + i : "the class", largest, cut(values[i])));
      }
    }
    return row;
  }

  /** Or -1 for what is not an integer from 0 to {@code largest}. */
  private static int integer(String text, int largest) {
    try {
      int value = Integer.parseInt(text.strip());
      return value < 0 || value > largest ? -1 : value;
    } catch (NumberFormatException e) {
      return -1;
    }
  }

  private static String cut(String value) {
    return value.length() <= LONGEST_VALUE ? value : value.substring(0, LONGEST_VALUE) + "...";
  }

  /** Where they are from. */
  String name() {
    return name;
  }

  /** Of all rows: what tells one set of images from another. */
  String sha256() {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      rows.forEach(digest::update);
      return HexFormat.of().formatHex(digest.digest());
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java has it", e);
    }
  }

  int size() {
    return rows.size();
  }

  int label(int image) {
    return rows.get(image)[PIXELS];
  }

  /** These images as float32 [n, 1, 8, 8], 0 to 1. */
  Tensor images(int... images) {
    float[] pixels = new float[images.length * PIXELS];
    for (int i = 0; i < images.length; i++) {
      byte[] row = rows.get(images[i]);
      for (int pixel = 0; pixel < PIXELS; pixel++) {
        pixels[i * PIXELS + pixel] = row[pixel] / (float) BRIGHTEST;
      }
    }
    return Tensor.create(pixels, images.length, 1, SIDE, SIDE);
  }

  /** Their classes as int64 [n]. */
  Tensor labels(int... images) {
    long[] labels = new long[images.length];
    for (int i = 0; i < images.length; i++) {
      labels[i] = label(images[i]);
    }
    return Tensor.create(labels, images.length);
  }
}
