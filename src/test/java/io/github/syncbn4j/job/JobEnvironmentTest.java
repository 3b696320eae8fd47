package io.github.syncbn4j.job;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What launchers say in environment variables, and what is said of it where it is not enough. */
class JobEnvironmentTest {
  private static final Map<String, String> TORCHRUN =
      Map.of(
          "RANK", "5",
          "WORLD_SIZE", "8",
          "LOCAL_RANK", "1",
          "LOCAL_WORLD_SIZE", "4",
          "MASTER_ADDR", "node7",
          "MASTER_PORT", "29400");
  private static final Map<String, String> MPIRUN =
      Map.of(
          "OMPI_COMM_WORLD_RANK", "3",
          "OMPI_COMM_WORLD_SIZE", "4",
          "OMPI_COMM_WORLD_LOCAL_RANK", "3",
          "OMPI_COMM_WORLD_LOCAL_SIZE", "4");
  private static final Map<String, String> SRUN =
      Map.of(
          "SLURM_PROCID", "9",
          "SLURM_NTASKS", "16",
          "SLURM_LOCALID", "1",
          "SLURM_STEP_NODELIST", "gpu[03-04]",
          "SLURM_JOB_NODELIST", "gpu[01-04]");

  private static Map<String, String> with(Map<String, String> base, String... namesAndValues) {
    Map<String, String> changed = new HashMap<>(base);
    for (int i = 0; i < namesAndValues.length; i += 2) {
      changed.put(namesAndValues[i], namesAndValues[i + 1]);
    }
    changed.values().removeIf(Objects::isNull);
    return changed;
  }

  private static void assertRefused(Map<String, String> environment, String message) {
    assertThatThrownBy(() -> JobEnvironment.of(environment))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage(message);
  }

  @Test
  void torchrun_hasItsPortForItself() {
    assertThat(JobEnvironment.of(TORCHRUN)).isEqualTo(new JobEnvironment(8, 5, 1, "node7", 29401));
  }

  @Test
  void mpirun_onOneNode_needsNoAddress() {
    assertThat(JobEnvironment.of(MPIRUN))
        .isEqualTo(new JobEnvironment(4, 3, 3, "127.0.0.1", 29501));
  }

  @Test
  void mpirun_onSeveralNodes_needsTheAddressOfRankZero() {
    Map<String, String> two = with(MPIRUN, "OMPI_COMM_WORLD_LOCAL_SIZE", "2");
    assertRefused(two, "MASTER_ADDR is not set: it names the node of rank 0 to the other nodes");
    assertThat(JobEnvironment.of(with(two, "MASTER_ADDR", " node7 ")).host()).isEqualTo("node7");
  }

  @Test
  void srun_findsRankZeroOnTheFirstNodeOfTheStep() {
    assertThat(JobEnvironment.of(SRUN)).isEqualTo(new JobEnvironment(16, 9, 1, "gpu03", 29501));
    assertThat(JobEnvironment.of(with(SRUN, "SLURM_STEP_NODELIST", null)).host())
        .isEqualTo("gpu01");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = ';',
      value = {
        "node7; node7",
        "a,b; a",
        "gpu[003-006,9],login; gpu003",
        "gpu[9,003]; gpu9",
        "gpu-[1-2].site.org,x; gpu-1.site.org",
        "rack[1-2]n[03-04]; rack1n03",
        "' n1 '; n1",
      })
  void firstNode_ofSlurmsList(String list, String first) {
    assertThat(JobEnvironment.of(with(SRUN, "SLURM_STEP_NODELIST", list)).host()).isEqualTo(first);
  }

  @ParameterizedTest
  @ValueSource(strings = {"", " ", ",a", "[1-2"})
  void slurmsListWithoutNode_isRefused(String list) {
    assertRefused(
        with(SRUN, "SLURM_STEP_NODELIST", list), "no node in SLURM's list '" + list + "'");
  }

  /** There the step is that of mpirun's daemons, without the node on which mpirun runs. */
  @Test
  void mpirun_onNodesOfSlurm_findsRankZeroOnTheFirstNodeOfTheJob() {
    Map<String, String> all = with(SRUN);
    all.putAll(with(MPIRUN, "OMPI_COMM_WORLD_LOCAL_SIZE", "2"));
    assertThat(JobEnvironment.of(all).host()).isEqualTo("gpu01");
  }

  /** A job that torchrun starts on nodes of SLURM has the variables of both. */
  @Test
  void torchrunComesBeforeMpirun_andMpirunBeforeSrun() {
    Map<String, String> all = with(SRUN);
    all.putAll(MPIRUN);
    assertThat(JobEnvironment.of(all).rank()).isEqualTo(3);
    all.putAll(TORCHRUN);
    assertThat(JobEnvironment.of(all)).isEqualTo(JobEnvironment.of(TORCHRUN));
  }

  @Test
  void ownPort_comesBeforeTheLaunchers() {
    assertThat(JobEnvironment.of(with(TORCHRUN, "SYNCBN_PORT", "40000")).port()).isEqualTo(40000);
  }

  @ParameterizedTest
  @CsvSource({
    "SYNCBN_PORT, 0, 65535",
    "SYNCBN_PORT, 65536, 65535",
    "SYNCBN_PORT, ssh, 65535",
    "MASTER_PORT, 65535, 65534",
  })
  void portThatCannotBe_isRefused(String name, String value, int most) {
    assertRefused(
        with(TORCHRUN, name, value),
        "%s must be a number from 1 to %d, not '%s'".formatted(name, most, value));
  }

  @Test
  void noLauncher_isRefused_withTheVariablesThatAreLookedFor() {
    assertThat(JobEnvironment.isIn(Map.of())).isFalse();
    assertThat(JobEnvironment.isIn(SRUN)).isTrue();
    assertRefused(
        Map.of("WORLD_SIZE", "2"),
        "no launcher has set RANK (torchrun), OMPI_COMM_WORLD_RANK (mpirun) or SLURM_PROCID (srun)");
  }

  @ParameterizedTest
  @ValueSource(strings = {"WORLD_SIZE", "LOCAL_RANK"})
  void torchrunWithoutAVariable(String name) {
    assertRefused(with(TORCHRUN, name, null), name + " is not set");
  }

  @ParameterizedTest
  @ValueSource(strings = {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"})
  void mpirunWithoutAVariable(String name) {
    assertRefused(with(MPIRUN, name, null), name + " is not set");
  }

  @ParameterizedTest
  @ValueSource(strings = {"SLURM_NTASKS", "SLURM_LOCALID"})
  void srunWithoutAVariable(String name) {
    assertRefused(with(SRUN, name, null), name + " is not set");
  }

  @ParameterizedTest
  @CsvSource({
    "RANK, 8, 0, 7",
    "RANK, -1, 0, 7",
    "RANK, '', 0, 7",
    "RANK, first, 0, 7",
    "LOCAL_RANK, 8, 0, 7",
    "WORLD_SIZE, 0, 1, 65536",
    "WORLD_SIZE, 99999999999, 1, 65536",
  })
  void variablesThatContradictEachOther(String name, String value, int least, int most) {
    assertRefused(
        with(TORCHRUN, name, value),
        "%s must be a number from %d to %d, not '%s'".formatted(name, least, most, value));
  }

  @Test
  void jobOfOne_needsNoAddress() {
    Map<String, String> one =
        with(TORCHRUN, "RANK", "0", "WORLD_SIZE", "1", "LOCAL_RANK", "0", "MASTER_ADDR", null);
    assertThat(JobEnvironment.of(one).host()).isEqualTo("127.0.0.1");
  }
}
