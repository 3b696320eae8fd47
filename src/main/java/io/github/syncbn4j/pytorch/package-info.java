/**
 * Synchronized batch norms for networks that are trained with bytedeco PyTorch.
 *
 * <pre>{@code
 * final class Net extends Module {                                       // written as ever
 *   BatchNorm2dImpl norm = register_module("norm", new BatchNorm2dImpl(new BatchNormOptions(64)));
 *   Tensor forward(Tensor x) { return norm.forward(conv.forward(x)).relu_(); }
 * }
 *
 * try (var group = ReplicaGroup.cpus(4)) {
 *   List<Net> networks = ...;                                            // one a replica
 *   SyncBatchNorms.convert(group, networks);
 *   ReplicaThreads.run(group, replica -> {
 *     Net network = networks.get(replica.rank());
 *     DataParallel parallel = new DataParallel(replica, network);        // same values
 *     ...
 *     try (PointerScope step = new PointerScope()) {                     // frees the step's tensors
 *       loss(network.forward(x)).backward();
 *       parallel.averageGradients();
 *       optimizer.step();
 *     }
 *   });
 * }
 * }</pre>
 *
 * <p>{@link io.github.syncbn4j.pytorch.SyncBatchNorms} converts the batch norms of networks. {@link
 * io.github.syncbn4j.pytorch.SyncBatchNorm2d#replicas SyncBatchNorm2d.replicas} and its like make
 * new ones, which can also add a residual and apply a ReLU in the same kernel. {@link
 * io.github.syncbn4j.pytorch.DataParallel} does the rest of data-parallel training.
 *
 * <p><b>The same module.</b> Each is libtorch's own batch norm, with its options, parameters,
 * buffers and names; saving, loading and optimizers work as ever. The layer works in the memory of
 * these tensors. After that a module cannot be converted to another type or moved, and its options
 * are what they were: a change of {@code momentum} or {@code eps} comes too late. As always in
 * PyTorch, {@code momentum} is the weight of the new value, and the running variance is the
 * unbiased one. Without running statistics the batch is used in evaluation too, that of all
 * replicas. A batch with one value a channel is refused in a group of one replica, as libtorch
 * does; with several replicas only the exchange could tell: y is then the bias.
 *
 * <p><b>Tensors.</b> Float, Half and BFloat16 with Float parameters, Double with Double ones; any
 * strides. Contiguous and channels-last tensors are used where they are, and y has the memory
 * format of x.
 *
 * <p><b>Gradients</b> are libtorch's: it accumulates those of x, the residual, weight and bias,
 * which are of the replica's own examples; those of weight and bias are summed over the replicas
 * like all others ({@link io.github.syncbn4j.pytorch.DataParallel}). x may not be changed in place
 * before backward, y may. Gradients of gradients are refused. A graph that is dropped without
 * backward gives its memory in the layer back at the module's next forward; one that is retained
 * keeps it.
 *
 * <p><b>Threads.</b> One a replica, which runs both forward and backward: a training step in either
 * waits for the other replicas. On the CPU, backward in another thread than forward is refused. One
 * that adds the losses of several replicas and goes backward in a thread of one of them ends with
 * the group's timeout.
 *
 * <p><b>Errors.</b> {@link java.lang.IllegalArgumentException} and {@link
 * java.lang.IllegalStateException} for what does not fit, before anything is enqueued. libtorch
 * turns what is thrown within backward into a {@link java.lang.RuntimeException} with its text;
 * {@link io.github.syncbn4j.ReplicaGroup#failure()} has the cause of a failed step.
 *
 * <p><b>GPUs.</b> Tensors on the replica's GPU are used where they are, on libtorch's current
 * stream ({@link io.github.syncbn4j.Replica#useStream}): the host waits for nothing. This has not
 * run on a GPU yet. A network on the CPU, as with libtorch's CPU jar, works with replicas on GPUs
 * too: its tensors are copied there and back.
 *
 * <p><b>Memory.</b> libtorch's tensors in Java are freed when they are closed, or by the garbage
 * collector, which knows little of their size: wrap each step in a {@link
 * org.bytedeco.javacpp.PointerScope}.
 *
 * <p>Source: PyTorch's {@code torch.nn.SyncBatchNorm} and {@code torch::nn::BatchNorm2d}.
 */
package io.github.syncbn4j.pytorch;
