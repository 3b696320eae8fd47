/**
 * The example behind {@code syncbn train}: a small ConvNet on real digits, trained data-parallel
 * with bytedeco PyTorch. Read {@link io.github.syncbn4j.cli.train.DigitsNet}, then {@code
 * ReplicaTrainer}, then {@code TrainingRun}.
 *
 * <p>Needs the optional dependencies pytorch (with its native part and that of openblas), xchart,
 * progressbar and jackson-databind.
 */
package io.github.syncbn4j.cli.train;
