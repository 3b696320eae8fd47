package io.github.syncbn4j.cli.train;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.zip.GZIPInputStream;

/** The digits with classes that have nothing to do with the images any more. */
final class PermutedDigits {
  private PermutedDigits() {}

  static Path write(Path file, long seed) throws IOException {
    List<String> images = new ArrayList<>();
    List<String> labels = new ArrayList<>();
    for (String row : rows()) {
      int label = row.lastIndexOf(',');
      images.add(row.substring(0, label));
      labels.add(row.substring(label));
    }
    Collections.shuffle(labels, new Random(seed));
    List<String> permuted = new ArrayList<>();
    for (int i = 0; i < images.size(); i++) {
      permuted.add(images.get(i) + labels.get(i));
    }
    return Files.write(file, permuted);
  }

  /** The digits as they are. */
  static List<String> rows() throws IOException {
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(
                new GZIPInputStream(Digits.class.getResourceAsStream("digits.csv.gz")),
                StandardCharsets.US_ASCII))) {
      return lines.lines().toList();
    }
  }
}
