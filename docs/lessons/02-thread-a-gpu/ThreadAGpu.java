import static org.bytedeco.pytorch.global.torch.cross_entropy_loss;
import static org.bytedeco.pytorch.global.torch.randn;
import static org.bytedeco.pytorch.global.torch.relu;

import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.pytorch.DataParallel;
import io.github.syncbn4j.pytorch.ReplicaThreads;
import io.github.syncbn4j.pytorch.SyncBatchNorms;
import java.util.List;
import java.util.stream.Stream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Adam;
import org.bytedeco.pytorch.AdamOptions;
import org.bytedeco.pytorch.BatchNorm1dImpl;
import org.bytedeco.pytorch.BatchNormOptions;
import org.bytedeco.pytorch.LinearImpl;
import org.bytedeco.pytorch.LongOptional;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/** Learns which points of a plane are within a circle: a copy of the network for each replica. */
class ThreadAGpu {
  static final int STEPS = 200;
  static final int POINTS = 16; // a replica and step

  /** Written as ever. */
  static final class Net extends Module {
    final LinearImpl first = register_module("first", new LinearImpl(2, 32));
    final BatchNorm1dImpl norm =
        register_module("norm", new BatchNorm1dImpl(new BatchNormOptions(32)));
    final LinearImpl last = register_module("last", new LinearImpl(32, 2));

    Tensor forward(Tensor x) {
      return last.forward(relu(norm.forward(first.forward(x))));
    }
  }

  public static void main(String... args) {
    boolean gpus = List.of(args).contains("gpu");
    torch.manual_seed(1);
    try (ReplicaGroup group = gpus ? ReplicaGroup.gpus() : ReplicaGroup.cpus(4)) {
      List<Net> networks = Stream.generate(Net::new).limit(group.size()).toList();
      List<Tensor> points =
          Stream.generate(() -> randn(STEPS, POINTS, 2)).limit(group.size()).toList();
      group.replicas().forEach(r -> networks.get(r.rank()).to(DataParallel.device(r), false));
      SyncBatchNorms.convert(group, networks); // their batch norms normalize together now
      ReplicaThreads.run(
          group,
          replica -> train(replica, networks.get(replica.rank()), points.get(replica.rank())));

      Net network = networks.get(0);
      network.eval();
      Tensor test =
          randn(2000, 2).to(DataParallel.device(group.replica(0)), torch.ScalarType.Float);
      Tensor right = network.forward(test).argmax(new LongOptional(1), false).eq(isInside(test));
      System.out.printf(
          "test accuracy %.2f%n", right.to(torch.ScalarType.Float).mean().item_float());
      Tensor mean = network.norm.running_mean().cpu();
      System.out.println(
          "the same statistics on all replicas: "
              + networks.stream().allMatch(n -> n.norm.running_mean().cpu().equal(mean)));
    }
  }

  /** What the replica's thread does. */
  static void train(Replica replica, Net network, Tensor points) {
    DataParallel parallel = new DataParallel(replica, network); // all start with rank 0's values
    Adam optimizer = new Adam(network.parameters(), new AdamOptions(1e-2));
    for (int step = 0; step < STEPS; step++) {
      try (PointerScope scope = new PointerScope()) { // frees the step's tensors
        Tensor x = points.select(0, step).to(DataParallel.device(replica), torch.ScalarType.Float);
        optimizer.zero_grad();
        Tensor loss = cross_entropy_loss(network.forward(x), isInside(x));
        loss.backward();
        parallel.averageGradients(); // each replica's are of its own points
        optimizer.step();
        if (step % 50 == 0 && replica.rank() == 0) {
          System.out.printf("step %3d  loss %.2f%n", step, loss.item_float());
        }
      }
    }
  }

  static Tensor isInside(Tensor points) {
    return points.square().sum(1).lt(new Scalar(1.4)).to(torch.ScalarType.Long);
  }
}
