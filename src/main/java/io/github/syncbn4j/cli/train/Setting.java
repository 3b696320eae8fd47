package io.github.syncbn4j.cli.train;

/**
 * What runs where on what, for the reports.
 *
 * @param data where the images are from
 * @param normalizationOn the replicas' devices
 * @param libtorchOn where everything else runs
 */
record Setting(
    String data,
    int trainingImages,
    int testImages,
    int stepsPerEpoch,
    String normalizationOn,
    String libtorchOn) {}
