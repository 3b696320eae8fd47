/**
 * What a device does for one replica: memory, a stream, the four kernels, and the exchange of rows
 * with the other replicas. {@link io.github.syncbn4j.device.Device} and {@link
 * io.github.syncbn4j.device.DeviceGroup} are implemented once for the CPU and once for CUDA;
 * neither knows the other, nor the layer above.
 */
package io.github.syncbn4j.device;
