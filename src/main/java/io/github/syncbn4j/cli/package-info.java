/**
 * The {@code syncbn} command. Needs the optional dependencies picocli, jackson-databind and a
 * binding of slf4j; {@code syncbn train} those of {@link io.github.syncbn4j.cli.train}, too.
 */
package io.github.syncbn4j.cli;
