package io.github.syncbn4j.cli.train;

import io.github.syncbn4j.Replica;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * What one replica exchanges with the others: first weights and gradients, all of them as one
 * tensor, so that the replicas wait for each other once.
 */
final class ModelExchange {
  private final TensorVector parameters;
  private final HostTensors host;

  ModelExchange(Replica replica, TensorVector parameters) {
    this.parameters = parameters;
    this.host = new HostTensors(replica);
  }

  /** Every replica's parameters become those of rank 0. */
  void broadcastParameters() {
    exchange(parameter -> parameter, flat -> host.broadcast(flat, 0));
  }

  /** Every replica's gradients become the sum of all replicas'. */
  void sumGradients() {
    exchange(Tensor::grad, host::allReduce);
  }

  private void exchange(UnaryOperator<Tensor> part, Consumer<Tensor> collective) {
    TensorVector parts = new TensorVector(parameters.size());
    for (long i = 0; i < parameters.size(); i++) {
      parts.put(i, part.apply(parameters.get(i)).flatten());
    }
    Tensor flat = torch.cat(parts);
    collective.accept(flat);
    long begin = 0;
    for (long i = 0; i < parameters.size(); i++) {
      Tensor tensor = part.apply(parameters.get(i));
      tensor.copy_(flat.narrow(0, begin, tensor.numel()).view_as(tensor));
      begin += tensor.numel();
    }
  }
}
