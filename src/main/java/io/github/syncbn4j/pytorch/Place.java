package io.github.syncbn4j.pytorch;

import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.InaccessibleObjectException;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Module;

/**
 * A place in the Java objects of a network that holds a module: a field of a module that is written
 * in Java, or an element of an array, a list or a map that is in one.
 *
 * @param name as in {@code Net.blocks[2]}
 * @param type what the place can hold
 */
record Place(String name, Module module, Class<?> type, Consumer<Module> setter) {

  /** All places below a module. */
  static List<Place> below(Module root) {
    Search search = new Search();
    search.fieldsOf(root);
    return search.found;
  }

  /**
   * @throws IllegalArgumentException if the place cannot hold {@code other}
   */
  void requireCanHold(Module other) {
    if (!type.isInstance(other)) {
      throw new IllegalArgumentException(
          "%s is declared %s and cannot hold a %s"
              .formatted(name, type.getSimpleName(), other.getClass().getSimpleName()));
    }
    try {
      set(module);
    } catch (UnsupportedOperationException e) {
      throw new IllegalArgumentException(name + " cannot be changed", e);
    }
  }

  void set(Module other) {
    setter.accept(other);
  }

  private static final class Search {
    private final List<Place> found = new ArrayList<>();
    private final Set<Object> seen = Collections.newSetFromMap(new IdentityHashMap<>());

    void fieldsOf(Module module) {
      if (Network.isSynced(module) || !seen.add(module)) {
        return;
      }
      for (Class<?> type = module.getClass(); !isPreset(type); type = type.getSuperclass()) {
        for (Field field : type.getDeclaredFields()) {
          if (!Modifier.isStatic(field.getModifiers()) && !field.getType().isPrimitive()) {
            field(module, field);
          }
        }
      }
    }

    private static boolean isPreset(Class<?> type) {
      return type.getName().startsWith("org.bytedeco.");
    }

    private void field(Module owner, Field field) {
      String name = field.getDeclaringClass().getSimpleName() + "." + field.getName();
      try {
        field.setAccessible(true);
        value(name, field.get(owner), field.getType(), other -> set(field, owner, other));
      } catch (IllegalAccessException | InaccessibleObjectException e) {
        throw new IllegalArgumentException(
            name + " cannot be read: open its package to io.github.syncbn4j", e);
      }
    }

    private static void set(Field field, Module owner, Module module) {
      try {
        field.set(owner, module);
      } catch (IllegalAccessException e) {
        throw new IllegalArgumentException(field + " cannot be written", e);
      }
    }

    private void value(String name, Object value, Class<?> type, Consumer<Module> setter) {
      if (value instanceof Module module) {
        found.add(new Place(name, module, type, setter));
        fieldsOf(module);
      } else if (value instanceof Object[] array && seen.add(array)) {
        for (int i = 0; i < array.length; i++) {
          int at = i;
          Class<?> elements = array.getClass().getComponentType();
          value(name + "[" + i + "]", array[i], elements, other -> Array.set(array, at, other));
        }
      } else if (value instanceof List<?> list && seen.add(list)) {
        for (int i = 0; i < list.size(); i++) {
          int at = i;
          value(name + "[" + i + "]", list.get(i), Module.class, other -> set(list, at, other));
        }
      } else if (value instanceof Map<?, ?> map && seen.add(map)) {
        for (Map.Entry<?, ?> entry : map.entrySet()) {
          String key = name + "[" + entry.getKey() + "]";
          value(key, entry.getValue(), Module.class, other -> set(map, entry.getKey(), other));
        }
      }
    }

    @SuppressWarnings("unchecked")
    private static void set(List<?> list, int at, Module module) {
      ((List<Object>) list).set(at, module);
    }

    @SuppressWarnings("unchecked")
    private static void set(Map<?, ?> map, Object key, Module module) {
      ((Map<Object, Object>) map).put(key, module);
    }
  }
}
