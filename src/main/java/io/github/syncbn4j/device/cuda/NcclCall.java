package io.github.syncbn4j.device.cuda;

import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.CudaKernels;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.nccl;
import org.bytedeco.cuda.nccl.ncclComm;

/**
 * A collective of NCCL, as one rank calls it for its part.
 *
 * @param <T> what a rank brings
 */
interface NcclCall<T> {
  /** The sum of the replicas' rows, in place. A part of a step: it makes nothing. */
  NcclCall<Rows> ALL_REDUCE_ROWS = new AllReduceRows();

  /** A sum, or a broadcast, of a tensor of each replica, in place. */
  NcclCall<Collective> OF_TENSOR = new OfTensor();

  int rank(T part);

  /** Returns NCCL's result. */
  int enqueue(T part, ncclComm communicator, CUstream_st stream);

  /** NCCL's function. */
  String name(T part);

  final class AllReduceRows implements NcclCall<Rows> {
    @Override
    public int rank(Rows part) {
      return part.rank();
    }

    @Override
    public int enqueue(Rows part, ncclComm communicator, CUstream_st stream) {
      return nccl.ncclAllReduce(
          part.buffer(),
          part.buffer(),
          part.elements(),
          nccl.ncclFloat64,
          nccl.ncclSum,
          communicator,
          stream);
    }

    @Override
    public String name(Rows part) {
      return "ncclAllReduce";
    }
  }

  final class OfTensor implements NcclCall<Collective> {
    @Override
    public int rank(Collective part) {
      return part.rank();
    }

    @Override
    public int enqueue(Collective part, ncclComm communicator, CUstream_st stream) {
      Address buffer = new Address(part.address());
      return part.isSum()
          ? nccl.ncclAllReduce(
              buffer,
              buffer,
              part.elements(),
              type(part.dtype()),
              nccl.ncclSum,
              communicator,
              stream)
          : nccl.ncclBroadcast(
              buffer, buffer, part.bytes(), nccl.ncclUint8, part.root(), communicator, stream);
    }

    private static int type(int dtype) {
      return switch (dtype) {
        case CudaKernels.SYNCBN_FLOAT64 -> nccl.ncclFloat64;
        case CudaKernels.SYNCBN_FLOAT32 -> nccl.ncclFloat32;
        case CudaKernels.SYNCBN_FLOAT16 -> nccl.ncclFloat16;
        default -> nccl.ncclBfloat16;
      };
    }

    @Override
    public String name(Collective part) {
      return part.isSum() ? "ncclAllReduce" : "ncclBroadcast";
    }
  }
}
