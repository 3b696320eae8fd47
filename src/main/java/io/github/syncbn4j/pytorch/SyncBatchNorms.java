package io.github.syncbn4j.pytorch;

import io.github.syncbn4j.ReplicaGroup;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Module;

/**
 * Makes the batch norms of networks synchronized ones, and back.
 *
 * <pre>{@code
 * List<Net> replicas = ...;                     // the same network once a replica, on its device
 * SyncBatchNorms.convert(group, replicas);      // from here on, a thread for each
 * }</pre>
 *
 * <p>libtorch's modules stay in the tree, with their names, parameters, buffers and optimizers;
 * what changes is what Java calls. So a batch norm can be converted where Java calls it: in a field
 * of a module that is written in Java, in an array, list or map in such a field, and in a {@code
 * SequentialImpl} in any of these. Fields may be final. Others are refused, such as those of a
 * {@code ModuleListImpl} that no field holds, of a subclass of {@code SequentialImpl} and of a
 * TorchScript module; so is a class of one's own that extends a batch norm.
 */
public final class SyncBatchNorms {
  private SyncBatchNorms() {}

  /**
   * Has every batch norm of the networks normalize with the statistics of all replicas. Those that
   * do already are left alone. Either all are converted or none.
   *
   * @param replicas one network a replica of this process, in rank order: with the same batch norms
   *     under the same names, and, as always in data-parallel training, the same values
   * @return the networks; in place of one that is itself a batch norm or a {@code SequentialImpl},
   *     what to call instead
   * @throws IllegalArgumentException with names, if the networks differ or have a batch norm that
   *     cannot be converted
   */
  public static <M extends Module> List<M> convert(ReplicaGroup group, List<M> replicas) {
    if (replicas.size() != group.replicas().size()) {
      throw new IllegalArgumentException(
          "%d networks for %d replicas".formatted(replicas.size(), group.replicas().size()));
    }
    requireDistinct(replicas);
    List<Network<M>> networks = replicas.stream().map(Network::new).toList();
    for (Network<M> network : networks) {
      network.requireConvertible();
      if (!network.names().equals(networks.get(0).names())) {
        throw new IllegalArgumentException(
            "the networks differ: rank %d has the batch norms %s, rank 0 %s"
                .formatted(networks.indexOf(network), network.names(), networks.get(0).names()));
      }
    }
    List<ReplicaNorm> made = new ArrayList<>();
    try {
      for (String name : networks.get(0).names()) {
        List<NativeNorm> norms = networks.stream().map(network -> network.norm(name)).toList();
        made.addAll(SharedNorm.bind(group, norms, false));
      }
    } catch (RuntimeException e) {
      made.forEach(ReplicaNorm::release);
      throw e;
    }
    Map<Long, ReplicaNorm> byAddress = new HashMap<>();
    made.forEach(norm -> byAddress.put(norm.norm().module().address(), norm));
    return networks.stream().map(network -> network.convert(byAddress)).toList();
  }

  /**
   * Takes back what {@link #convert} did. Parameters, running statistics and optimizers go on. Also
   * of batch norms that {@link SyncBatchNorm2d#replicas} and its like made.
   *
   * @param replicas all that were converted together
   * @return the networks, as {@link #convert} does
   * @throws IllegalArgumentException if a field cannot hold an ordinary batch norm
   */
  public static <M extends Module> List<M> revert(List<M> replicas) {
    requireDistinct(replicas);
    List<Network<M>> networks = replicas.stream().map(Network::new).toList();
    networks.forEach(Network::requireRevertible);
    return networks.stream().map(Network::revert).toList();
  }

  private static void requireDistinct(List<? extends Module> replicas) {
    if (replicas.stream().map(Module::address).distinct().count() < replicas.size()) {
      throw new IllegalArgumentException(
          "a network is listed twice: every replica needs a copy of its own");
    }
  }
}
