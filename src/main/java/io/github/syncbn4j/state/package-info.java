/** Files that hold a layer's state and recordings: safetensors. */
package io.github.syncbn4j.state;
