package io.github.syncbn4j.device;

import java.util.List;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;

/**
 * The arguments of both halves of a direction, of some replicas in rank order: what {@link
 * DeviceGroup#forward} and {@link DeviceGroup#backward} take. Made once, so that a step makes
 * nothing; the arguments stay their owner's.
 *
 * @param <A> of the half before the exchange of rows
 * @param <B> of the half behind it
 */
public final class Halves<A extends Pointer, B extends Pointer> {
  private final List<A> first;
  private final List<B> second;
  private final LongPointer firstAddresses;
  private final LongPointer secondAddresses;

  public Halves(List<A> first, List<B> second) {
    this.first = first;
    this.second = second;
    this.firstAddresses = addresses(first);
    this.secondAddresses = addresses(second);
  }

  // Retained, since a scope of the caller's that is open would end with it.
  private static LongPointer addresses(List<? extends Pointer> args) {
    LongPointer addresses = new LongPointer(args.size());
    for (int i = 0; i < args.size(); i++) {
      addresses.put(i, args.get(i).address());
    }
    return addresses.retainReference();
  }

  public int replicas() {
    return first.size();
  }

  public A first(int replica) {
    return first.get(replica);
  }

  public B second(int replica) {
    return second.get(replica);
  }

  /** Where {@link #first} are, as the C ABI takes them. */
  public LongPointer firstAddresses() {
    return firstAddresses;
  }

  /** Where {@link #second} are. */
  public LongPointer secondAddresses() {
    return secondAddresses;
  }
}
