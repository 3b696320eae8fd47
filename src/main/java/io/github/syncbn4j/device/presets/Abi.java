package io.github.syncbn4j.device.presets;

import java.util.List;
import org.bytedeco.javacpp.tools.Info;
import org.bytedeco.javacpp.tools.InfoMap;

/** The names in syncbn.h, so that each binding leaves out what belongs to the other. */
final class Abi {
  private static final List<String> STRUCTS =
      List.of(
          "syncbn_control",
          "syncbn_stats_args",
          "syncbn_normalize_args",
          "syncbn_backward_reduce_args",
          "syncbn_backward_input_args",
          "syncbn_copy_args");

  private static final List<String> FUNCTIONS =
      List.of(
          "abi_version",
          "build_info",
          "last_error",
          "workspace_bytes",
          "pool_create",
          "pool_destroy",
          "stats",
          "normalize",
          "backward_reduce",
          "backward_input",
          "forward",
          "backward",
          "forward_on_chip",
          "backward_on_chip",
          "copy");

  private Abi() {}

  static void skipFunctions(InfoMap infoMap, String prefix) {
    FUNCTIONS.forEach(name -> infoMap.put(new Info(prefix + name).skip()));
  }

  /** Undoes {@link #skipFunctions} of an inherited preset. */
  static void takeFunctions(InfoMap infoMap, String prefix) {
    FUNCTIONS.forEach(name -> infoMap.putFirst(new Info(prefix + name)));
  }

  static void skipStructs(InfoMap infoMap) {
    STRUCTS.forEach(name -> infoMap.put(new Info(name).pointerTypes(name).skip()));
  }
}
