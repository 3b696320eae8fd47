package io.github.syncbn4j.device;

import org.bytedeco.javacpp.Pointer;

/** A plain address as a JavaCPP pointer. Owns nothing. */
public final class Address extends Pointer {
  public Address(long address) {
    super((Pointer) null);
    this.address = address;
  }
}
