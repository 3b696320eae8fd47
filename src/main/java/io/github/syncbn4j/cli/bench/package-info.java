/**
 * {@code syncbn bench}: how long the layer takes, against a copy and against other implementations,
 * with a check of every result. Needs xchart, progressbar and jackson-databind; compares with
 * bytedeco's PyTorch and dnnl where they are there.
 */
package io.github.syncbn4j.cli.bench;
