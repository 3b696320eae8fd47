package io.github.syncbn4j.state;

import java.math.BigDecimal;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Pattern;

/**
 * What a framework calls the state of a batch normalization, and what it means by it.
 *
 * <table>
 * <caption>Names, and what differs behind them</caption>
 * <tr><th></th><th>a tensor's name</th><th>momentum</th><th>running variance</th></tr>
 * <tr><td>SYNCBN4J</td><td>{@code prefix.gamma}, beta, moving_mean, moving_variance</td>
 *     <td>of the old value</td><td>biased</td></tr>
 * <tr><td>KERAS</td><td>{@code prefix/gamma}, beta, moving_mean, moving_variance</td>
 *     <td>of the old value</td><td>biased</td></tr>
 * <tr><td>PYTORCH</td><td>{@code prefix.weight}, bias, running_mean, running_var</td>
 *     <td>of the new value</td><td>unbiased</td></tr>
 * <tr><td>DJL</td><td>{@code prefix_gamma}, beta, runningMean, runningVar</td>
 *     <td>of the old value</td><td>unbiased</td></tr>
 * </table>
 *
 * <p>The number of steps is {@code counted_steps} here and {@code num_batches_tracked} elsewhere,
 * also in the frameworks that have no such thing. The statistics of renorm are {@code
 * moving_stddev}, {@code renorm_mean} and {@code renorm_stddev} everywhere.
 */
public enum Naming {
  /** This library's own. */
  SYNCBN4J(".", "gamma", "beta", "moving_mean", "moving_variance", "counted_steps", "epsilon"),
  /** Keras', of a variable's path. */
  KERAS("/", "gamma", "beta", "moving_mean", "moving_variance", "num_batches_tracked", "epsilon"),
  /** A {@code state_dict}'s. */
  PYTORCH(".", "weight", "bias", "running_mean", "running_var", "num_batches_tracked", "eps"),
  /** Of the parameters of a DJL block. */
  DJL("_", "gamma", "beta", "runningMean", "runningVar", "num_batches_tracked", "epsilon");

  /** In place of a variable's name: the training steps that changed the state, an int64. */
  public static final String COUNTED_STEPS = "counted_steps";

  public static final String MOMENTUM = "momentum";
  public static final String EPSILON = "epsilon";

  /** Whether a running variance is {@code biased} or {@code unbiased}: of this library alone. */
  public static final String VARIANCE = "running_variance";

  /** Of as many digits as a float64's text has. */
  private static final Pattern NUMBER =
      Pattern.compile("-?\\d{1,20}(\\.\\d{1,20})?([eE]-?\\d{1,2})?");

  private final String separator;
  private final Map<String, String> names;

  Naming(
      String separator,
      String gamma,
      String beta,
      String mean,
      String variance,
      String steps,
      String epsilon) {
    this.separator = separator;
    this.names =
        Map.of(
            "gamma",
            gamma,
            "beta",
            beta,
            "moving_mean",
            mean,
            "moving_variance",
            variance,
            COUNTED_STEPS,
            steps,
            EPSILON,
            epsilon);
  }

  /** As a command line has it, in lower case. */
  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** The framework's word for one of this library's. */
  String word(String word) {
    return names.getOrDefault(word, word);
  }

  /** The whole name of what belongs to the batch normalization {@code prefix}; "" for none. */
  String name(String prefix, String word) {
    return prefix.isEmpty() ? word(word) : prefix + separator + word(word);
  }

  /**
   * The prefix of such a name.
   *
   * @return null if it does not end in this word
   */
  String prefix(String name, String word) {
    String end = word(word);
    if (name.equals(end)) {
      return "";
    }
    // Files of Keras users have either.
    for (String before : this == KERAS ? List.of("/", ".") : List.of(separator)) {
      if (name.endsWith(before + end)) {
        return name.substring(0, name.length() - before.length() - end.length());
      }
    }
    return null;
  }

  /** What the framework's files say under {@link Safetensors#FORMAT}. */
  Optional<String> format() {
    return switch (this) {
      case SYNCBN4J -> Optional.of(Safetensors.STATE_FORMAT);
      case PYTORCH -> Optional.of("pt");
      case KERAS, DJL -> Optional.empty();
    };
  }

  /** Whether a tensor of this name is a variable of the layer {@code prefix}, known or not. */
  boolean isOf(String prefix, String name) {
    String begin = prefix.isEmpty() ? "" : prefix + separator;
    return name.startsWith(begin) && !name.substring(begin.length()).contains(separator);
  }

  /** Whether a running variance averages n / (n - 1) times the batch's. */
  public boolean unbiased() {
    return this == PYTORCH || this == DJL;
  }

  /** Whether there is always a count of steps. */
  boolean counts() {
    return this == SYNCBN4J || this == PYTORCH;
  }

  /** Whether a batch normalization without gamma, or without beta, may lack it in a file. */
  boolean mayLack(boolean both) {
    return switch (this) {
      case SYNCBN4J, KERAS -> true;
      case PYTORCH -> both;
      case DJL -> false;
    };
  }

  /**
   * A momentum's text from another framework's: {@code 0.9} is {@code 0.1} where it weights the new
   * value, to the digit. What is no number, as for an average of all steps, stays.
   */
  String momentum(String text, Naming of) {
    if ((this == PYTORCH) == (of == PYTORCH)) {
      return text;
    }
    if (!NUMBER.matcher(text).matches()) {
      return text;
    }
    return BigDecimal.ONE.subtract(new BigDecimal(text)).stripTrailingZeros().toPlainString();
  }
}
