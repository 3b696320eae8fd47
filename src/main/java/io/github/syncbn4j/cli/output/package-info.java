/**
 * What long commands show beside text: a progress bar, and charts that look alike. Needs xchart and
 * progressbar.
 */
package io.github.syncbn4j.cli.output;
