/**
 * Synchronized batch normalization. Its native libraries are in jars of their own, {@code
 * linux-x86_64} and {@code linux-x86_64-cuda13}, and those of JavaCPP and CUDA in theirs: on the
 * class path, or as modules that have to be named, see docs/release.md.
 */
module io.github.syncbn4j {
  requires transitive org.bytedeco.javacpp; // Pointer
  requires org.bytedeco.cuda;
  requires org.slf4j;
  requires com.fasterxml.jackson.core;

  // The adapter to bytedeco PyTorch. Not transitive: whoever has no PyTorch could not be compiled.
  requires static org.bytedeco.pytorch;

  // Keras' files.
  requires static io.jhdf;

  // The command line.
  requires static info.picocli;
  requires static com.fasterxml.jackson.databind;
  requires static me.tongfei.progressbar;
  requires static org.knowm.xchart;
  requires static org.bytedeco.dnnl;
  requires static java.desktop;

  exports io.github.syncbn4j;
  exports io.github.syncbn4j.device;
  exports io.github.syncbn4j.job;
  exports io.github.syncbn4j.nn;
  exports io.github.syncbn4j.pytorch;
  exports io.github.syncbn4j.state;
  // JavaCPP makes the structs by reflection.
  exports io.github.syncbn4j.device.natives to
      org.bytedeco.javacpp;
  exports io.github.syncbn4j.device.presets to
      org.bytedeco.javacpp;

  opens io.github.syncbn4j.cli to
      info.picocli;
}
