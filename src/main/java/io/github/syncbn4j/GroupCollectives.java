package io.github.syncbn4j;

import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.job.Call;
import java.util.List;

/** A group's sums and broadcasts of tensors, of all replicas of this process or of one. */
final class GroupCollectives {
  private final DeviceGroup devices;
  private final List<Replica> replicas;
  private final GroupCalls calls;

  GroupCollectives(DeviceGroup devices, List<Replica> replicas, GroupCalls calls) {
    this.devices = devices;
    this.replicas = replicas;
    this.calls = calls;
  }

  /**
   * @param root the rank to broadcast from, or {@link Collective#SUM}
   * @throws IllegalArgumentException unless there is a tensor for each replica, all alike
   */
  void run(List<DeviceTensor> tensors, int root) {
    if (tensors.size() != replicas.size()) {
      throw new IllegalArgumentException(
          "%d tensors, the group has %d replicas here".formatted(tensors.size(), replicas.size()));
    }
    Collective[] parts = new Collective[replicas.size()];
    DeviceTensor first = tensors.get(0);
    for (int i = 0; i < parts.length; i++) {
      DeviceTensor tensor = tensors.get(i);
      parts[i] = replicas.get(i).part(tensor, root);
      if (tensor.dtype() != first.dtype()
          || !tensor.hasShape(first.shape())
          || !tensor.hasStrides(first.strides())) {
        throw new IllegalArgumentException(
            "the tensor of rank %d is %s, that of rank %d is %s"
                .formatted(replicas.get(i).rank(), tensor, replicas.get(0).rank(), first));
      }
    }
    run(replicas, parts);
  }

  /** The part of one replica: every replica's thread comes with its own. */
  void run(Replica member, Collective part) {
    run(List.of(member), part);
  }

  private void run(List<Replica> members, Collective... parts) {
    if (devices.size() == 1) {
      return;
    }
    if (parts.length > 1) {
      calls.requireNoCapture();
    }
    boolean captured = members.get(0).isCapturing();
    calls.step(
        members,
        () -> {
          for (Collective part : parts) {
            if (!captured) {
              calls.announce(
                  part.rank(), Call.collective(part.root()), part.elements(), part.dtype());
            }
          }
          devices.run(parts);
        });
  }
}
