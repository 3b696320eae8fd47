/** CUDA as a program has it that uses the library: what is timed on GPUs is timed by it. */
package io.github.syncbn4j.cli.cuda;
