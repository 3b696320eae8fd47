package io.github.syncbn4j.build;

import static com.tngtech.archunit.library.Architectures.layeredArchitecture;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;

import com.tngtech.archunit.ArchConfiguration;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.library.Architectures.LayeredArchitecture;
import com.tngtech.archunit.library.dependencies.SliceAssignment;
import com.tngtech.archunit.library.dependencies.SliceIdentifier;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The packages of the library, and which of them each may use. */
class HouseTest {
  private static final String ROOT = "io.github.syncbn4j";

  /** From the roof down: no package may use one above it. */
  private static final Map<String, String[]> MAY_USE = new LinkedHashMap<>();

  static {
    mayUse(
        "cli",
        "cli.bench",
        "cli.train",
        "cli.output",
        "cli.cuda",
        "root",
        "state",
        "job",
        "device",
        "device.cpu",
        "device.cuda");
    mayUse("cli.bench", "cli.output", "cli.cuda", "pytorch", "root", "device");
    mayUse("cli.train", "cli.output", "pytorch", "root", "state", "job");
    mayUse("cli.output");
    mayUse("cli.cuda", "device");
    mayUse("pytorch", "root", "device");
    mayUse("root", "check", "state", "nn", "job", "device", "device.cpu", "device.cuda");
    mayUse("state", "nn", "check");
    mayUse("nn", "check");
    mayUse("job");
    mayUse("device.cpu", "device");
    mayUse("device.cuda", "device");
    mayUse("device");
    mayUse("check");
  }

  private static JavaClasses classes;

  private static void mayUse(String name, String... others) {
    MAY_USE.put(name, others);
  }

  @BeforeAll
  static void read() {
    // The class path has libtorch's bindings, which take long to read.
    ArchConfiguration.get().setResolveMissingDependenciesFromClassPath(false);
    classes = new ClassFileImporter().importPath(Path.of("target", "classes"));
  }

  @Test
  void arrowsPointDown() {
    LayeredArchitecture house =
        layeredArchitecture()
            .consideringOnlyDependenciesInLayers()
            .ensureAllClassesAreContainedInArchitecture();
    for (String name : MAY_USE.keySet()) {
      house = house.layer(name).definedBy(packages(name));
    }
    for (Map.Entry<String, String[]> rule : MAY_USE.entrySet()) {
      LayeredArchitecture.LayerDependencySpecification arrows = house.whereLayer(rule.getKey());
      house =
          rule.getValue().length == 0
              ? arrows.mayNotAccessAnyLayer()
              : arrows.mayOnlyAccessLayers(rule.getValue());
    }
    house.check(classes);
  }

  private static String[] packages(String name) {
    return switch (name) {
      case "root" -> new String[] {ROOT};
      // What JavaCPP generates from the C header, and what tells it how.
      case "device" ->
          new String[] {ROOT + ".device", ROOT + ".device.natives", ROOT + ".device.presets"};
      default -> new String[] {ROOT + "." + name};
    };
  }

  @Test
  void packages_haveNoCycles() {
    slices().assignedFrom(new Packages()).should().beFreeOfCycles().check(classes);
  }

  private static final class Packages implements SliceAssignment {
    @Override
    public SliceIdentifier getIdentifierOf(JavaClass javaClass) {
      return SliceIdentifier.of(javaClass.getPackageName());
    }

    @Override
    public String getDescription() {
      return "packages";
    }
  }
}
