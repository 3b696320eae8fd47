package io.github.syncbn4j.cli.train;

/**
 * What runs where on what, for the reports.
 *
 * @param data where the images are from
 * @param normalizationOn the replicas' devices
 * @param libtorch everything else
 */
record Setting(
    String data,
    int trainingImages,
    int testImages,
    int stepsPerEpoch,
    String normalizationOn,
    Libtorch libtorch) {}
