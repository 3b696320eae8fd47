package io.github.syncbn4j.pytorch;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.AnyModuleVector;
import org.bytedeco.pytorch.SequentialImpl;
import org.bytedeco.pytorch.Tensor;

/**
 * libtorch's {@code Sequential} with batch norms that are synchronized: its forward goes from child
 * to child in Java, since libtorch's would call its own batch norms. (From Java, none can be put
 * into another.)
 */
final class SyncSequential extends SequentialImpl {
  private final SequentialImpl original;

  /** By the place of the child. */
  private final Map<Integer, ReplicaNorm> norms = new HashMap<>();

  /**
   * The same native module as {@code original}.
   *
   * @param byAddress batch norms, by the address of the module that they take the place of
   */
  SyncSequential(SequentialImpl original, Map<Long, ReplicaNorm> byAddress) {
    super((Pointer) original);
    this.original = original;
    List<Long> children = children(original);
    for (int i = 0; i < children.size(); i++) {
      ReplicaNorm norm = byAddress.get(children.get(i));
      if (norm != null) {
        norms.put(i, norm);
      }
    }
  }

  /** The addresses of a sequential's children. */
  static List<Long> children(SequentialImpl sequential) {
    List<Long> addresses = new ArrayList<>();
    for (long i = 0; i < sequential.size(); i++) {
      addresses.add(sequential.ptr(i).address());
    }
    return addresses;
  }

  SequentialImpl original() {
    return original;
  }

  List<ReplicaNorm> norms() {
    return List.copyOf(norms.values());
  }

  @Override
  public Tensor forward(Tensor x) {
    Tensor last = x;
    AnyModuleVector.Iterator child = original.begin();
    for (int i = 0; i < original.size(); i++) {
      ReplicaNorm norm = norms.get(i);
      Tensor next = norm == null ? child.get().forward(last) : norm.forward(last, null);
      if (last != x) {
        last.close();
      }
      last = next;
      child.increment();
    }
    return last;
  }
}
