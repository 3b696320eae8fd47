/**
 * The {@code syncbn} command. Needs the optional dependencies picocli, jackson-databind and a
 * binding of slf4j.
 */
package io.github.syncbn4j.cli;
