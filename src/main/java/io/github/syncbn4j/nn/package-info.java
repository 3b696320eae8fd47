/**
 * What Keras attaches to a layer's parameters: initializers, regularizers and constraints, by
 * object, by Keras' identifier or by Keras' configuration, and the JSON text of configurations.
 *
 * <p>Everything here runs on the host and in float64, on parameters in row-major order with their
 * shape beside them. Whoever keeps them in float32 rounds the results. The built-in objects are
 * immutable: any thread may use them.
 */
package io.github.syncbn4j.nn;
