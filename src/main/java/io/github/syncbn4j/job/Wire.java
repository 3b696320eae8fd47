package io.github.syncbn4j.job;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.Closeable;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.Socket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * The rendezvous' protocol on one connection: a rank asks, rank 0's process answers.
 *
 * <pre>
 * HELLO   magic, version, world size, rank, milliseconds that it waits for the others
 *         answered when all ranks have said it: "" and what rank 0 hands to all, or why not
 * ENTER   group, size, rank in it
 * REPORT  group, calls that this rank has made
 * ASK     group       answered: verdict or "", whether rank 0 is about to leave
 * FAIL    group, reason
 * LEAVE   group
 * </pre>
 */
final class Wire implements Closeable {
  static final int MAGIC = 0x53424e34; // SBN4
  static final int VERSION = 1;
  static final int HELLO = 1;
  static final int ENTER = 2;
  static final int REPORT = 3;
  static final int ASK = 4;
  static final int FAIL = 5;
  static final int LEAVE = 6;

  /** Far above what is ever sent: bytes and calls of a message. */
  private static final int MOST = 1 << 16;

  private final Socket socket;
  final DataInputStream in;
  final DataOutputStream out;

  Wire(Socket socket) throws IOException {
    this.socket = socket;
    socket.setTcpNoDelay(true);
    in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
    out = new DataOutputStream(new BufferedOutputStream(socket.getOutputStream()));
  }

  /** How long a read waits; 0: for ever. */
  void readTimeout(Duration timeout) throws IOException {
    socket.setSoTimeout((int) Math.min(Integer.MAX_VALUE, timeout.toMillis()));
  }

  void writeBytes(byte[] bytes) throws IOException {
    out.writeInt(bytes.length);
    out.write(bytes);
  }

  byte[] readBytes() throws IOException {
    byte[] bytes = new byte[readLength()];
    in.readFully(bytes);
    return bytes;
  }

  /** A text of any length, cut to what a message may hold. */
  void writeText(String text) throws IOException {
    out.writeUTF(text.substring(0, Math.min(text.length(), MOST / 4)));
  }

  void writeCalls(List<Call> calls) throws IOException {
    out.writeInt(calls.size());
    for (Call call : calls) {
      out.writeBoolean(call != null);
      if (call != null) {
        out.writeLong(call.what());
        out.writeLong(call.size());
        out.writeInt(call.type());
      }
    }
  }

  List<Call> readCalls() throws IOException {
    int length = readLength();
    List<Call> calls = new ArrayList<>();
    for (int i = 0; i < length; i++) {
      calls.add(in.readBoolean() ? new Call(in.readLong(), in.readLong(), in.readInt()) : null);
    }
    return calls;
  }

  private int readLength() throws IOException {
    int length = in.readInt();
    if (length < 0 || length > MOST) {
      throw new IOException("a length of " + length + ": not this protocol");
    }
    return length;
  }

  @Override
  public void close() throws IOException {
    socket.close();
  }
}
