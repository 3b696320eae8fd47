/**
 * How the ranks of a job find each other, and notice that one of them is lost or does something
 * else. Knows nothing of devices.
 */
package io.github.syncbn4j.job;
