import static org.bytedeco.cuda.global.cudart.cudaGraphDestroy;
import static org.bytedeco.cuda.global.cudart.cudaGraphExecDestroy;
import static org.bytedeco.cuda.global.cudart.cudaGraphInstantiate;
import static org.bytedeco.cuda.global.cudart.cudaGraphLaunch;
import static org.bytedeco.cuda.global.cudart.cudaStreamBeginCapture;
import static org.bytedeco.cuda.global.cudart.cudaStreamCaptureModeThreadLocal;
import static org.bytedeco.cuda.global.cudart.cudaStreamCreateWithFlags;
import static org.bytedeco.cuda.global.cudart.cudaStreamDestroy;
import static org.bytedeco.cuda.global.cudart.cudaStreamEndCapture;
import static org.bytedeco.cuda.global.cudart.cudaStreamNonBlocking;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.DeviceTensor;
import io.github.syncbn4j.ForwardPass;
import io.github.syncbn4j.Replica;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import org.bytedeco.cuda.cudart.CUgraphExec_st;
import org.bytedeco.cuda.cudart.CUgraph_st;
import org.bytedeco.cuda.cudart.CUstream_st;

/** Captures a training step into a CUDA graph, and replays it. */
class CudaGraph {
  static final int REPLAYS = 100;

  public static void main(String... args) {
    try (ReplicaGroup group = ReplicaGroup.gpus(0)) {
      Replica replica = group.replica(0);
      CUstream_st stream = new CUstream_st();
      check(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
      replica.useStream(stream.address());

      DeviceTensor x = replica.allocate(DType.FLOAT32, 4, 1);
      DeviceTensor y = replica.allocate(DType.FLOAT32, 4, 1);
      x.copyFromHost(1, 2, 3, 6); // a graph reads its addresses: write new batches there
      SyncBatchNormalization layer = layer(group);
      step(layer, replica, x, y); // a first call, in which memory is allocated

      CUgraph_st graph = new CUgraph_st();
      CUgraphExec_st executable = new CUgraphExec_st();
      check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      step(layer, replica, x, y); // enqueued into the graph: nothing runs
      check(cudaStreamEndCapture(stream, graph));
      check(cudaGraphInstantiate(executable, graph, 0));
      for (int i = 0; i < REPLAYS; i++) {
        check(cudaGraphLaunch(executable, stream));
      }
      print("replayed", layer, replica);

      SyncBatchNormalization called = layer(group);
      for (int i = 0; i <= REPLAYS; i++) {
        step(called, replica, x, y);
      }
      print("called", called, replica);

      group.synchronize();
      check(cudaGraphExecDestroy(executable)); // before the group is closed
      check(cudaGraphDestroy(graph));
      replica.useOwnStream();
      group.synchronize();
      check(cudaStreamDestroy(stream));
    }
  }

  static SyncBatchNormalization layer(ReplicaGroup group) {
    return SyncBatchNormalization.builder(group, 1).build();
  }

  static void step(SyncBatchNormalization layer, Replica replica, DeviceTensor x, DeviceTensor y) {
    try (ForwardPass pass = layer.forward(replica, x, y, true)) {
      layer.backward(pass, y, y);
    }
  }

  static void print(String how, SyncBatchNormalization layer, Replica replica) {
    System.out.printf(
        "%-8s %d steps, moving mean %s%n",
        how, layer.countedSteps(), layer.movingMean(replica).copyToHost()[0]);
  }

  static void check(int error) {
    if (error != 0) {
      throw new IllegalStateException("CUDA error " + error);
    }
  }
}
