package io.github.syncbn4j.job;

import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a launcher says of a process of a job, in environment variables: torchrun ({@code RANK},
 * {@code WORLD_SIZE}, {@code LOCAL_RANK}), Open MPI's mpirun ({@code OMPI_COMM_WORLD_*}), SLURM's
 * srun ({@code SLURM_PROCID} and its kin). The first of these that is there counts.
 *
 * @param rank 0 to worldSize - 1
 * @param localRank the process's number on its node
 * @param host where rank 0 is: {@code MASTER_ADDR}, else this node if all ranks are on it, else the
 *     first node of SLURM's list
 * @param port of the rendezvous: {@code SYNCBN_PORT}, else the one after {@code MASTER_PORT}, which
 *     belongs to the launcher, else {@link #DEFAULT_PORT}
 */
public record JobEnvironment(int worldSize, int rank, int localRank, String host, int port) {
  /** The one after torchrun's default MASTER_PORT. */
  public static final int DEFAULT_PORT = 29501;

  private static final int MOST_RANKS = 1 << 16;
  private static final int MOST_PORTS = 1 << 16;

  /** SLURM's lists of the nodes of an allocation, by their newer and their older name. */
  private static final List<String> OF_JOB = List.of("SLURM_JOB_NODELIST", "SLURM_NODELIST");

  /** The same, after the nodes of the one srun that started the process. */
  private static final List<String> OF_STEP =
      List.of("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST");

  /**
   * Names of variables: rank, world size, local rank, ranks on this node or null, and lists of
   * nodes whose first one has rank 0. In a process of mpirun SLURM's step is that of mpirun's
   * daemons, which leaves out the node where mpirun itself runs.
   */
  private record Launcher(
      String rank, String worldSize, String localRank, String localSize, List<String> nodeLists) {}

  private static final List<Launcher> LAUNCHERS =
      List.of(
          new Launcher("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", OF_JOB),
          new Launcher(
              "OMPI_COMM_WORLD_RANK",
              "OMPI_COMM_WORLD_SIZE",
              "OMPI_COMM_WORLD_LOCAL_RANK",
              "OMPI_COMM_WORLD_LOCAL_SIZE",
              OF_JOB),
          new Launcher("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", null, OF_STEP));

  /** The first element of a list such as {@code gpu[003-006,9]-a,login}. */
  private static final Pattern FIRST = Pattern.compile("(?:[^,\\[\\]]|\\[\\d[^\\[\\]]*\\])+");

  /** In it, what stands for several numbers. */
  private static final Pattern RANGES = Pattern.compile("\\[(\\d+)[^\\]]*\\]");

  /** Whether a launcher says that this process is one of a job. */
  public static boolean isIn(Map<String, String> environment) {
    return LAUNCHERS.stream().anyMatch(launcher -> environment.containsKey(launcher.rank()));
  }

  /**
   * @throws IllegalArgumentException if variables are missing or contradict each other; names them
   */
  public static JobEnvironment of(Map<String, String> environment) {
    Launcher launcher =
        LAUNCHERS.stream()
            .filter(candidate -> environment.containsKey(candidate.rank()))
            .findFirst()
            .orElseThrow(
                () ->
                    new IllegalArgumentException(
                        "no launcher has set RANK (torchrun), OMPI_COMM_WORLD_RANK (mpirun) or SLURM_PROCID (srun)"));
    int worldSize = number(environment, launcher.worldSize(), 1, MOST_RANKS);
    int rank = number(environment, launcher.rank(), 0, worldSize - 1);
    int localRank = number(environment, launcher.localRank(), 0, worldSize - 1);
    return new JobEnvironment(
        worldSize, rank, localRank, host(environment, launcher, worldSize), port(environment));
  }

  private static int number(Map<String, String> environment, String name, int least, int most) {
    String text = environment.get(name);
    if (text == null) {
      throw new IllegalArgumentException(name + " is not set");
    }
    try {
      int value = Integer.parseInt(text.strip());
      if (value >= least && value <= most) {
        return value;
      }
    } catch (NumberFormatException e) {
      // told below
    }
    throw new IllegalArgumentException(
        "%s must be a number from %d to %d, not '%s'".formatted(name, least, most, text));
  }

  private static String host(Map<String, String> environment, Launcher launcher, int worldSize) {
    String address = environment.get("MASTER_ADDR");
    if (address != null && !address.isBlank()) {
      return address.strip();
    }
    String localSize = launcher.localSize() == null ? null : environment.get(launcher.localSize());
    if (worldSize == 1 || String.valueOf(worldSize).equals(localSize)) {
      return "127.0.0.1";
    }
    for (String list : launcher.nodeLists()) {
      if (environment.containsKey(list)) {
        return firstNode(environment.get(list));
      }
    }
    throw new IllegalArgumentException(
        "MASTER_ADDR is not set: it names the node of rank 0 to the other nodes");
  }

  private static String firstNode(String list) {
    Matcher matcher = FIRST.matcher(list.strip());
    if (!matcher.lookingAt()) {
      throw new IllegalArgumentException("no node in SLURM's list '" + list + "'");
    }
    return RANGES.matcher(matcher.group()).replaceAll("$1");
  }

  private static int port(Map<String, String> environment) {
    if (environment.containsKey("SYNCBN_PORT")) {
      return number(environment, "SYNCBN_PORT", 1, MOST_PORTS - 1);
    }
    if (environment.containsKey("MASTER_PORT")) {
      return number(environment, "MASTER_PORT", 1, MOST_PORTS - 2) + 1;
    }
    return DEFAULT_PORT;
  }
}
