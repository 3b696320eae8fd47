/** What several packages check of what they are given, each with its own limit and words. */
package io.github.syncbn4j.check;
