import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;

/** One rank of a job that a launcher starts as a process for each GPU. */
class ProcessAGpu {
  public static void main(String... args) {
    try (ReplicaGroup group = ReplicaGroup.fromEnvironment(); // meets the other processes
        SyncBatchNormalization layer =
            SyncBatchNormalization.builder(group, 1).momentum(0).build()) {
      Replica replica = group.replicas().get(0); // the only one of this process
      int rank = replica.rank();
      DeviceTensor x = replica.allocate(DType.FLOAT32, 2, 1);
      DeviceTensor y = replica.allocate(DType.FLOAT32, 2, 1);
      x.copyFromHost(10 * rank - 1, 10 * rank + 1); // this rank's part of the batch
      try (ForwardPass pass = layer.forward(replica, x, y, true)) {
        layer.backward(pass, y, y);
      }
      float mean = layer.movingMean(replica).copyToHost()[0];

      DeviceTensor sum = replica.allocate(DType.FLOAT32, 1);
      sum.copyFromHost(mean);
      replica.allReduce(sum); // of what is not the layer's, such as other gradients
      if (rank == 0) {
        System.out.printf("%d ranks, a GPU each%n", group.size());
        System.out.printf("mean of rank 0's part %d, of the whole batch %.1f%n", 10 * rank, mean);
        System.out.printf("mean of all ranks' means %.1f%n", sum.copyToHost()[0] / group.size());
      }
    }
  }
}
