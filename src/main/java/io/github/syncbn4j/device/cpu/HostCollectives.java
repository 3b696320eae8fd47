package io.github.syncbn4j.device.cpu;

import io.github.syncbn4j.device.Address;
import io.github.syncbn4j.device.Collective;
import io.github.syncbn4j.device.HalfFloats;
import io.github.syncbn4j.device.Rows;
import io.github.syncbn4j.device.natives.CpuKernels;
import java.util.Arrays;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.ShortPointer;
import org.bytedeco.javacpp.indexer.DoubleIndexer;
import org.bytedeco.javacpp.indexer.FloatIndexer;
import org.bytedeco.javacpp.indexer.ShortIndexer;

/** What the replicas of one process exchange through memory, once all are there. */
final class HostCollectives {
  private HostCollectives() {}

  /** Each rank's row into all others' buffers: what a sum of the zero-filled buffers gives. */
  static void copyRows(Rows[] all) {
    for (Rows from : all) {
      int rank = from.rank();
      for (Rows to : all) {
        if (to != from) {
          Pointer.memcpy(to.row(rank), from.row(rank), from.bytes());
        }
      }
    }
  }

  static void run(Collective[] all) {
    if (all[0].elements() == 0) {
      return;
    }
    if (all[0].isSum()) {
      sum(all);
    } else {
      broadcast(all);
    }
  }

  private static void broadcast(Collective[] all) {
    Collective root = all[all[0].root()];
    for (Collective to : all) {
      if (to != root) {
        Pointer.memcpy(new Address(to.address()), new Address(root.address()), root.bytes());
      }
    }
  }

  /** In float64, in the order of the ranks, rounded once for all. */
  private static void sum(Collective[] all) {
    View[] views = Arrays.stream(all).map(HostCollectives::view).toArray(View[]::new);
    for (long i = 0; i < all[0].elements(); i++) {
      double sum = views[0].get(i);
      for (int rank = 1; rank < views.length; rank++) {
        sum += views[rank].get(i);
      }
      for (View view : views) {
        view.put(i, sum);
      }
    }
  }

  private interface View {
    double get(long i);

    void put(long i, double value);
  }

  private static View view(Collective part) {
    Address address = new Address(part.address());
    long length = part.elements();
    return switch (part.dtype()) {
      case CpuKernels.SYNCBN_FLOAT64 ->
          new Doubles(DoubleIndexer.create(new DoublePointer(address).capacity(length)));
      case CpuKernels.SYNCBN_FLOAT32 ->
          new Floats(FloatIndexer.create(new FloatPointer(address).capacity(length)));
      default ->
          new Halves(
              ShortIndexer.create(new ShortPointer(address).capacity(length)),
              part.dtype() == CpuKernels.SYNCBN_FLOAT16);
    };
  }

  private record Doubles(DoubleIndexer values) implements View {
    @Override
    public double get(long i) {
      return values.get(i);
    }

    @Override
    public void put(long i, double value) {
      values.put(i, value);
    }
  }

  private record Floats(FloatIndexer values) implements View {
    @Override
    public double get(long i) {
      return values.get(i);
    }

    @Override
    public void put(long i, double value) {
      values.put(i, (float) value);
    }
  }

  private record Halves(ShortIndexer values, boolean float16) implements View {
    @Override
    public double get(long i) {
      short bits = values.get(i);
      return float16 ? HalfFloats.fromFloat16(bits) : HalfFloats.fromBfloat16(bits);
    }

    @Override
    public void put(long i, double value) {
      values.put(i, float16 ? HalfFloats.toFloat16(value) : HalfFloats.toBfloat16(value));
    }
  }
}
