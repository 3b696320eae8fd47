/**
 * Files that hold layers' state and recordings, and what frameworks call it: safetensors, Keras'
 * files, names. Knows no layer: those use it.
 */
package io.github.syncbn4j.state;
