package io.github.syncbn4j.spec;

import io.github.syncbn4j.DType;
import io.github.syncbn4j.RenormClipping;
import io.github.syncbn4j.ReplicaGroup;
import io.github.syncbn4j.SyncBatchNormalization;
import java.util.Arrays;

/**
 * What is asked of a layer and of its {@link PlainLayer} alike, with Keras' defaults. The fields
 * are a test's to set.
 */
final class Options {
  int[] axis = {-1};
  double momentum = 0.99;
  double epsilon = 1e-3;
  boolean center = true;
  boolean scale = true;
  boolean renorm;
  Double rmin;
  Double rmax;
  Double dmax;
  double renormMomentum = 0.99;
  boolean unbiased;
  boolean cumulative;
  boolean relu;

  /** Whether there is an adjustment: each training step then brings its factors. */
  boolean adjusted;

  SyncBatchNormalization.Builder builder(ReplicaGroup group, DType dtype) {
    SyncBatchNormalization.Builder builder =
        SyncBatchNormalization.builder(group)
            .dtype(dtype)
            .axis(axis)
            .momentum(momentum)
            .epsilon(epsilon)
            .center(center)
            .scale(scale)
            .renorm(renorm)
            .renormClipping(new RenormClipping(rmin, rmax, dmax))
            .renormMomentum(renormMomentum)
            .unbiasedRunningVariance(unbiased)
            .relu(relu);
    return cumulative ? builder.cumulativeAverage() : builder;
  }

  @Override
  public String toString() {
    return ("axis %s, momentum %s, epsilon %s, center %s, scale %s, relu %s, unbiased %s, "
            + "cumulative %s, adjusted %s, renorm %s (rmin %s, rmax %s, dmax %s, momentum %s)")
        .formatted(
            Arrays.toString(axis),
            momentum,
            epsilon,
            center,
            scale,
            relu,
            unbiased,
            cumulative,
            adjusted,
            renorm,
            rmin,
            rmax,
            dmax,
            renormMomentum);
  }
}
