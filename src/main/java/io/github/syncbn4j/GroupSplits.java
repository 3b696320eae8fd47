package io.github.syncbn4j;

import io.github.syncbn4j.device.Cleanup;
import io.github.syncbn4j.device.DeviceGroup;
import io.github.syncbn4j.job.Call;
import io.github.syncbn4j.job.Rendezvous;
import io.github.syncbn4j.job.SideChannel;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;

/** How parts of a group become groups, under names that are the same in all processes. */
final class GroupSplits {
  private final DeviceGroup devices;
  private final Rendezvous rendezvous;
  private final String name;
  private final Duration timeout;
  private final AtomicInteger count = new AtomicInteger();

  /**
   * @param rendezvous null if there is none
   * @param name of the group in the rendezvous
   */
  GroupSplits(DeviceGroup devices, Rendezvous rendezvous, String name, Duration timeout) {
    this.devices = devices;
    this.rendezvous = rendezvous;
    this.name = name;
    this.timeout = timeout;
  }

  /** The part of this process's only replica. */
  ReplicaGroup split(ReplicaGroup group, int color, int key) {
    String part = "%s/%d:%d".formatted(name, count.getAndIncrement(), color);
    GroupCalls calls = group.calls();
    AtomicReference<DeviceGroup> made = new AtomicReference<>();
    try {
      calls.step(
          group.replicas(),
          () -> {
            calls.announce(
                devices.firstRank(), Call.SPLIT.what(), Call.SPLIT.size(), Call.SPLIT.type());
            made.set(devices.split(color, key, timeout));
          });
    } catch (RuntimeException e) {
      if (made.get() != null) { // the group has failed meanwhile, and not all have their part
        Cleanup.after(e, made.get()::abort);
        Cleanup.after(e, made.get()::close);
      }
      throw e;
    }
    DeviceGroup ofPart = made.get();
    SideChannel channel =
        rendezvous == null
            ? SideChannel.NONE
            : rendezvous.group(part, ofPart.size(), ofPart.firstRank());
    return new ReplicaGroup(ofPart, channel, rendezvous, part, timeout);
  }
}
