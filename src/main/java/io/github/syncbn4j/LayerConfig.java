package io.github.syncbn4j;

/** A layer's validated options. */
record LayerConfig(long channels, double momentum, double epsilon, boolean center, boolean scale) {}
