package consumer;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import io.github.syncbn4j.device.DeviceUnavailableException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Normalizes 0 on one CPU replica and 2 on another, then says which GPUs there are, or why none. */
public final class Main {
  private Main() {}

  public static void main(String[] args) {
    System.out.println(Main.class.getModule());
    try (ReplicaGroup group = ReplicaGroup.cpus(2);
        SyncBatchNormalization layer = SyncBatchNormalization.builder(group, 1).epsilon(0).build()) {
      List<DeviceTensor> x = new ArrayList<>();
      List<DeviceTensor> y = new ArrayList<>();
      for (Replica replica : group.replicas()) {
        x.add(replica.allocate(DType.FLOAT32, 1, 1));
        x.get(replica.rank()).copyFromHost(2f * replica.rank());
        y.add(replica.allocate(DType.FLOAT32, 1, 1));
      }
      layer.forward(x, y, true).close();
      for (DeviceTensor part : y) {
        System.out.println(part.replica() + ": " + Arrays.toString(part.copyToHost()));
      }
    }
    try (ReplicaGroup gpus = ReplicaGroup.gpus()) {
      System.out.println(gpus.replicas());
    } catch (DeviceUnavailableException e) {
      e.reasons().forEach(reason -> System.out.println("no GPU: " + reason));
    }
  }
}
