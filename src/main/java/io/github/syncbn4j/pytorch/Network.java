package io.github.syncbn4j.pytorch;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BatchNorm1dImpl;
import org.bytedeco.pytorch.BatchNorm2dImpl;
import org.bytedeco.pytorch.BatchNorm3dImpl;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.SequentialImpl;
import org.bytedeco.pytorch.StringSharedModuleDict;

/** One replica's network: libtorch's tree of modules, and the places in which Java has them. */
final class Network<M extends Module> {
  private static final Set<Class<?>> ORDINARY =
      Set.of(BatchNorm1dImpl.class, BatchNorm2dImpl.class, BatchNorm3dImpl.class);

  private final List<Place> places = new ArrayList<>();

  /** By name in the tree, those that are not synchronized. */
  private final Map<String, NativeNorm> norms = new LinkedHashMap<>();

  private Module root;

  @SuppressWarnings("try")
  Network(M root) {
    this.root = root;
    places.add(new Place("the network", root, Module.class, module -> this.root = module));
    places.addAll(Place.below(root));
    Set<Long> known = new HashSet<>();
    for (Place place : places) {
      synced(place.module()).forEach(norm -> known.add(norm.norm().module().address()));
    }
    find("", root, known);
    try (PointerScope scope = new PointerScope()) {
      StringSharedModuleDict modules = root.named_modules("", false);
      for (long i = 0; i < modules.size(); i++) {
        find(modules.get(i).key().getString(), modules.get(i).value(), known);
      }
    }
  }

  private void find(String name, Module module, Set<Long> known) {
    NativeNorm norm = NativeNorm.of(module);
    if (norm != null && known.add(norm.module().address())) {
      norms.put(name, norm);
    }
  }

  Set<String> names() {
    return norms.keySet();
  }

  NativeNorm norm(String name) {
    return norms.get(name);
  }

  /**
   * @throws IllegalArgumentException if there are batch norms that no place leads to, or a place
   *     cannot be changed
   */
  void requireConvertible() {
    Set<Long> reachable = new HashSet<>();
    for (Place place : places) {
      Set<Long> here = reachableAt(place);
      if (!here.isEmpty()) {
        place.requireCanHold(place.module());
      }
      reachable.addAll(here);
    }
    List<String> hidden =
        norms.entrySet().stream()
            .filter(entry -> !reachable.contains(entry.getValue().module().address()))
            .map(Map.Entry::getKey)
            .toList();
    if (!hidden.isEmpty()) {
      throw new IllegalArgumentException(
          "no field of a module, and no array, list or map in one, leads to the batch norms "
              + hidden
              + ", so that their forward cannot be replaced");
    }
  }

  /** The addresses of the batch norms that are called by way of a place. */
  private Set<Long> reachableAt(Place place) {
    Set<Long> addresses = new HashSet<>();
    Class<?> type = place.module().getClass();
    if (ORDINARY.contains(type)) {
      addresses.add(place.module().address());
    } else if (type == SequentialImpl.class) {
      addresses.addAll(SyncSequential.children((SequentialImpl) place.module()));
    }
    addresses.retainAll(
        norms.values().stream().map(norm -> norm.module().address()).collect(Collectors.toSet()));
    return addresses;
  }

  /** Replaces what is in the places. */
  M convert(Map<Long, ReplicaNorm> byAddress) {
    for (Place place : places) {
      Module module = place.module();
      if (reachableAt(place).isEmpty()) {
        continue;
      }
      place.set(
          module instanceof SequentialImpl sequential
              ? new SyncSequential(sequential, byAddress)
              : synced(module, byAddress.get(module.address())));
    }
    return root();
  }

  /**
   * @throws IllegalArgumentException if a place cannot hold what was converted
   */
  void requireRevertible() {
    for (Place place : places) {
      if (isSynced(place.module())) {
        place.requireCanHold(original(place.module()));
      }
    }
  }

  /** Puts the originals back. */
  M revert() {
    for (Place place : places) {
      if (isSynced(place.module())) {
        synced(place.module()).forEach(ReplicaNorm::release);
        place.set(original(place.module()));
      }
    }
    return root();
  }

  static boolean isSynced(Module module) {
    return !synced(module).isEmpty();
  }

  /** What takes a root's place extends its class. */
  @SuppressWarnings("unchecked")
  private M root() {
    return (M) root;
  }

  private static Module synced(Module norm, ReplicaNorm by) {
    if (norm instanceof BatchNorm1dImpl one) {
      return new SyncBatchNorm1d(one, by);
    }
    if (norm instanceof BatchNorm2dImpl two) {
      return new SyncBatchNorm2d(two, by);
    }
    return new SyncBatchNorm3d((BatchNorm3dImpl) norm, by);
  }

  private static List<ReplicaNorm> synced(Module module) {
    if (module instanceof SyncBatchNorm1d one) {
      return List.of(one.norm());
    }
    if (module instanceof SyncBatchNorm2d two) {
      return List.of(two.norm());
    }
    if (module instanceof SyncBatchNorm3d three) {
      return List.of(three.norm());
    }
    return module instanceof SyncSequential sequential ? sequential.norms() : List.of();
  }

  private static Module original(Module synced) {
    if (synced instanceof SyncBatchNorm1d one) {
      return one.original();
    }
    if (synced instanceof SyncBatchNorm2d two) {
      return two.original();
    }
    if (synced instanceof SyncBatchNorm3d three) {
      return three.original();
    }
    return ((SyncSequential) synced).original();
  }
}
