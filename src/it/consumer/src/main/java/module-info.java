module consumer {
  requires io.github.syncbn4j;
  // Nothing in these has a name in Java, but a module that nobody requires is not there.
  requires io.github.syncbn4j.linux.x86_64;
  requires org.bytedeco.javacpp.linux.x86_64;
  requires org.bytedeco.cuda.linux.x86_64;
}
