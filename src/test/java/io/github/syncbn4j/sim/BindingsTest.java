package io.github.syncbn4j.sim;

import static org.assertj.core.api.Assertions.assertThat;

import io.github.syncbn4j.device.Address;
import org.bytedeco.cuda.cudart.CUevent_st;
import org.bytedeco.cuda.cudart.CUgraphExec_st;
import org.bytedeco.cuda.cudart.CUgraph_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.cudart.cudaPointerAttributes;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.Pointer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * Whether the published bindings and the stand-ins understand each other where structs, streams and
 * graphs are concerned: symbols, layouts, and what a capture forbids.
 */
@Tag("sim")
class BindingsTest {
  private final CUstream_st stream = new CUstream_st();
  private final CUevent_st event = new CUevent_st();
  private final Pointer memory = new Address(0);

  @BeforeEach
  void onDevice2() {
    ok(cudart.cudaSetDevice(2));
    ok(cudart.cudaStreamCreateWithFlags(stream, cudart.cudaStreamNonBlocking));
    ok(cudart.cudaEventCreateWithFlags(event, cudart.cudaEventDisableTiming));
    ok(cudart.cudaMalloc(memory, 64));
  }

  @AfterEach
  void release() {
    ok(cudart.cudaFree(memory));
    ok(cudart.cudaEventDestroy(event));
    ok(cudart.cudaStreamDestroy(stream));
    ok(cudart.cudaSetDevice(0));
    cudart.cudaGetLastError();
  }

  private static void ok(int error) {
    assertThat(error).isEqualTo(cudart.cudaSuccess);
  }

  @Test
  void pointers_knowTheirKindAndDevice() {
    ok(cudart.cudaSetDevice(0));
    cudaPointerAttributes attributes = new cudaPointerAttributes();
    ok(cudart.cudaPointerGetAttributes(attributes, new Address(memory.address() + 60)));
    assertThat(attributes.type()).isEqualTo(cudart.cudaMemoryTypeDevice);
    assertThat(attributes.device()).isEqualTo(2);
    assertThat(attributes.devicePointer().address()).isEqualTo(memory.address() + 60);

    Pointer pinned = new Address(0);
    ok(cudart.cudaHostAlloc(pinned, 8, cudart.cudaHostAllocMapped));
    ok(cudart.cudaPointerGetAttributes(attributes, new Address(pinned.address() + 4)));
    assertThat(attributes.type()).isEqualTo(cudart.cudaMemoryTypeHost);
    assertThat(attributes.hostPointer().address()).isEqualTo(pinned.address() + 4);
    ok(cudart.cudaFreeHost(pinned));

    try (IntPointer ours = new IntPointer(4)) {
      ok(cudart.cudaPointerGetAttributes(attributes, ours));
      assertThat(attributes.type()).isEqualTo(cudart.cudaMemoryTypeUnregistered);
    }
  }

  @Test
  void streams_knowTheirDevice() {
    ok(cudart.cudaSetDevice(0));
    int[] device = {-1};
    ok(cudart.cudaStreamGetDevice(stream, device));
    assertThat(device[0]).isEqualTo(2);
  }

  @Test
  void captures_areSeen_andReplayed() {
    int[] mode = {cudart.cudaStreamCaptureModeThreadLocal};
    ok(cudart.cudaThreadExchangeStreamCaptureMode(mode));
    assertThat(mode[0]).isEqualTo(cudart.cudaStreamCaptureModeGlobal);
    ok(cudart.cudaThreadExchangeStreamCaptureMode(mode));

    ok(cudart.cudaMemset(memory, 1, 4));
    ok(cudart.cudaStreamBeginCapture(stream, cudart.cudaStreamCaptureModeGlobal));
    assertThat(status()).isEqualTo(cudart.cudaStreamCaptureStatusActive);
    ok(cudart.cudaMemsetAsync(memory, 2, 4, stream));
    CUgraph_st graph = new CUgraph_st();
    CUgraphExec_st executable = new CUgraphExec_st();
    ok(cudart.cudaStreamEndCapture(stream, graph));
    assertThat(status()).isEqualTo(cudart.cudaStreamCaptureStatusNone);
    ok(cudart.cudaGraphInstantiate(executable, graph, 0));
    ok(cudart.cudaGraphDestroy(graph));
    assertThat(firstWord()).isEqualTo(0x01010101);
    ok(cudart.cudaGraphLaunch(executable, stream));
    ok(cudart.cudaStreamSynchronize(stream));
    assertThat(firstWord()).isEqualTo(0x02020202);
    ok(cudart.cudaGraphExecDestroy(executable));
  }

  @Test
  void forbiddenCalls_failAndInvalidateTheCapture() {
    for (int mode :
        new int[] {cudart.cudaStreamCaptureModeGlobal, cudart.cudaStreamCaptureModeThreadLocal}) {
      spoils(
          mode,
          cudart.cudaErrorStreamCaptureUnsupported,
          () -> cudart.cudaMalloc(new Address(0), 8));
      spoils(mode, cudart.cudaErrorStreamCaptureUnsupported, () -> cudart.cudaFree(memory));
      spoils(
          mode,
          cudart.cudaErrorStreamCaptureUnsupported,
          () -> cudart.cudaStreamSynchronize(stream));
      spoils(mode, cudart.cudaErrorStreamCaptureUnsupported, () -> cudart.cudaStreamQuery(stream));
      ok(cudart.cudaEventRecord(event, stream));
      spoils(
          mode,
          cudart.cudaErrorStreamCaptureIsolation,
          () -> cudart.cudaStreamWaitEvent(stream, event, 0));
    }
  }

  /** A native call that returns a {@code cudaError_t}. */
  private interface Call {
    int run();
  }

  private void spoils(int mode, int expected, Call call) {
    ok(cudart.cudaStreamBeginCapture(stream, mode));
    assertThat(call.run()).isEqualTo(expected);
    assertThat(status()).isEqualTo(cudart.cudaStreamCaptureStatusInvalidated);
    assertThat(cudart.cudaStreamEndCapture(stream, new CUgraph_st()))
        .isEqualTo(cudart.cudaErrorStreamCaptureInvalidated);
  }

  private int status() {
    int[] status = {-1};
    ok(cudart.cudaStreamIsCapturing(stream, status));
    return status[0];
  }

  private int firstWord() {
    try (IntPointer host = new IntPointer(1)) {
      ok(cudart.cudaMemcpy(host, memory, 4, cudart.cudaMemcpyDeviceToHost));
      return host.get();
    }
  }
}
