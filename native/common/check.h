// Which arguments does the library take? The checks that both backends share, and the text of the last error.
//
// Each library keeps one Error per thread and hands it to check() first thing in every entry point. Nothing here throws
// or allocates, and no check reads what an address points to: on a GPU the host could not.
#ifndef SYNCBN_CHECK_H
#define SYNCBN_CHECK_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmath>

#include "syncbn.h"

namespace syncbn {

// Trivial, so that a thread_local Error costs nothing before it is used.
struct Error {
  char text[256];
};

// Writes the text and returns the code, so that a function can `return fail(...)`.
__attribute__((format(printf, 3, 4))) inline int fail(Error &error, int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error.text, sizeof error.text, format, arguments);
  va_end(arguments);
  return code;
}

inline int64_t element_size(int32_t dtype) {
  switch (dtype) {
    case SYNCBN_FLOAT16:
    case SYNCBN_BFLOAT16:
      return 2;
    case SYNCBN_FLOAT32:
      return 4;
    default:
      return 8;
  }
}

inline int64_t parameter_size(int32_t dtype) { return dtype == SYNCBN_FLOAT64 ? 8 : 4; }

// Remembers the first requirement that does not hold; those after it are not looked at.
class Requirements {
 public:
  explicit Requirements(Error &error) : error_(error) { error_.text[0] = '\0'; }

  bool hold() const { return status_ == SYNCBN_OK; }
  int status() const { return status_; }

  __attribute__((format(printf, 4, 5))) void require(bool condition, int code, const char *format, ...) {
    if (condition || !hold()) return;
    status_ = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error_.text, sizeof error_.text, format, arguments);
    va_end(arguments);
  }

  // A caller with an older, shorter struct must not have the fields read that it does not know.
  template <typename Args>
  bool require_struct(const Args *args, const char *name) {
    require(args != nullptr, SYNCBN_INVALID_ARGUMENT, "%s is null", name);
    if (!hold()) return false;
    require(args->struct_size >= sizeof(Args), SYNCBN_INVALID_ARGUMENT, "struct_size is %u; %s has at least %zu bytes",
            static_cast<unsigned>(args->struct_size), name, sizeof(Args));
    return hold();
  }

  void require_address(const char *name, syncbn_address address, int64_t alignment, bool needed) {
    require(address != 0 || !needed, SYNCBN_INVALID_ARGUMENT, "%s is null", name);
    require(address % static_cast<uint64_t>(alignment) == 0, SYNCBN_INVALID_ARGUMENT,
            "%s is at 0x%llx; it must be a multiple of %d", name, static_cast<unsigned long long>(address),
            static_cast<int>(alignment));
  }

  void require_channels(int64_t channels) {
    require(channels >= 1, SYNCBN_INVALID_ARGUMENT, "channels is %lld; it must be at least 1", count(channels));
    require(channels <= INT32_MAX, SYNCBN_UNSUPPORTED, "channels is %lld; at most %lld are supported", count(channels),
            count(INT32_MAX));
  }

  // The tensors of an operation: they all have one dtype and one shape.
  template <typename Args>
  void require_shape(const Args &args) {
    require(args.dtype >= SYNCBN_FLOAT32 && args.dtype <= SYNCBN_FLOAT64, SYNCBN_INVALID_ARGUMENT,
            "dtype is %d; it must be one of syncbn_dtype (0 .. 3)", args.dtype);
    require(args.dtype == SYNCBN_FLOAT32, SYNCBN_UNSUPPORTED, "dtype is %d; only float32 (0) is supported", args.dtype);
    require(args.outer >= 0, SYNCBN_INVALID_ARGUMENT, "outer is %lld; it must not be negative", count(args.outer));
    require_channels(args.channels);
    require(args.inner >= 0, SYNCBN_INVALID_ARGUMENT, "inner is %lld; it must not be negative", count(args.inner));
    require(args.inner == 1, SYNCBN_UNSUPPORTED, "inner is %lld; only 1 (channels-last) is supported",
            count(args.inner));
    if (!hold()) return;
    int64_t bytes = 0;
    require(!__builtin_mul_overflow(args.outer, args.channels, &bytes) &&
                !__builtin_mul_overflow(bytes, args.inner, &bytes) &&
                !__builtin_mul_overflow(bytes, element_size(args.dtype), &bytes),
            SYNCBN_INVALID_ARGUMENT, "outer %lld x channels %lld x inner %lld: a tensor must stay below 2^63 bytes",
            count(args.outer), count(args.channels), count(args.inner));
  }

  // row_head: the float64 of a row before its two per-channel parts.
  void require_world(int32_t world_size, int64_t channels, int64_t row_head) {
    require(world_size >= 1, SYNCBN_INVALID_ARGUMENT, "world_size is %d; it must be at least 1", world_size);
    if (!hold()) return;
    int64_t bytes = 0;
    require(!__builtin_mul_overflow((row_head + 2 * channels) * 8, static_cast<int64_t>(world_size), &bytes),
            SYNCBN_INVALID_ARGUMENT, "world_size %d x channels %lld: rows must stay below 2^63 bytes", world_size,
            count(channels));
  }

  void require_rank(int32_t rank, int32_t world_size) {
    require(rank >= 0 && rank < world_size, SYNCBN_INVALID_ARGUMENT,
            "rank is %d; it must be at least 0 and below world_size, which is %d", rank, world_size);
  }

  void require_training(int32_t training) {
    require(training == 0 || training == 1, SYNCBN_INVALID_ARGUMENT, "training is %d; it must be 0 or 1", training);
  }

  void require_signature(double signature) {
    require(!std::isnan(signature), SYNCBN_INVALID_ARGUMENT, "signature is NaN; it must equal itself");
    require(signature != 0, SYNCBN_INVALID_ARGUMENT, "signature is 0; that stands for a rank that did not come");
  }

 private:
  // %lld takes long long, which int64_t is not on every Linux.
  static long long count(int64_t value) { return value; }

  Error &error_;
  int status_ = SYNCBN_OK;
};

constexpr int64_t kForwardRowHead = 2;   // signature, count
constexpr int64_t kBackwardRowHead = 1;  // signature

inline bool has_elements(int64_t outer, int64_t inner) { return outer > 0 && inner > 0; }

inline int check_channels(int64_t channels, Error &error) {
  Requirements r(error);
  r.require_channels(channels);
  return r.status();
}

inline int check(const syncbn_stats_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_stats_args")) return r.status();
  r.require_shape(*args);
  r.require_world(args->world_size, args->channels, kForwardRowHead);
  r.require_rank(args->rank, args->world_size);
  r.require_signature(args->signature);
  r.require_address("x", args->x, element_size(args->dtype), has_elements(args->outer, args->inner));
  r.require_address("rows", args->rows, 8, true);
  r.require_address("workspace", args->workspace, 8, true);
  return r.status();
}

inline int check(const syncbn_normalize_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_normalize_args")) return r.status();
  r.require_shape(*args);
  r.require_training(args->training);
  r.require_world(args->world_size, args->channels, kForwardRowHead);
  const bool training = args->training != 0;
  if (training) r.require_signature(args->signature);
  r.require(args->epsilon >= 0 && std::isfinite(args->epsilon), SYNCBN_INVALID_ARGUMENT,
            "epsilon is %g; it must be finite and not negative", args->epsilon);
  r.require(!training || std::isfinite(args->decay), SYNCBN_INVALID_ARGUMENT, "decay is %g; it must be finite",
            args->decay);
  const int64_t element = element_size(args->dtype);
  const int64_t parameter = parameter_size(args->dtype);
  const bool elements = has_elements(args->outer, args->inner);
  r.require_address("x", args->x, element, elements);
  r.require_address("y", args->y, element, elements);
  r.require_address("gamma", args->gamma, parameter, false);
  r.require_address("beta", args->beta, parameter, false);
  r.require_address("rows", args->rows, 8, training);
  r.require_address("moving_mean", args->moving_mean, parameter, true);
  r.require_address("moving_variance", args->moving_variance, parameter, true);
  r.require_address("saved", args->saved, 8, false);
  r.require_address("control", args->control, 8, training);
  r.require_address("workspace", args->workspace, 8, training);
  return r.status();
}

inline int check(const syncbn_backward_reduce_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_backward_reduce_args")) return r.status();
  r.require_shape(*args);
  r.require_world(args->world_size, args->channels, kBackwardRowHead);
  r.require_rank(args->rank, args->world_size);
  r.require_signature(args->signature);
  const int64_t element = element_size(args->dtype);
  const int64_t parameter = parameter_size(args->dtype);
  const bool elements = has_elements(args->outer, args->inner);
  r.require_address("x", args->x, element, elements);
  r.require_address("dy", args->dy, element, elements);
  r.require_address("saved", args->saved, 8, true);
  r.require_address("rows", args->rows, 8, false);
  r.require_address("gamma_grad", args->gamma_grad, parameter, false);
  r.require_address("beta_grad", args->beta_grad, parameter, false);
  r.require_address("workspace", args->workspace, 8, true);
  return r.status();
}

inline int check(const syncbn_backward_input_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_backward_input_args")) return r.status();
  r.require_shape(*args);
  r.require_training(args->training);
  r.require_world(args->world_size, args->channels, kBackwardRowHead);
  const bool training = args->training != 0;
  if (training) r.require_signature(args->signature);
  const int64_t element = element_size(args->dtype);
  const bool elements = has_elements(args->outer, args->inner);
  r.require_address("x", args->x, element, elements && training);
  r.require_address("dy", args->dy, element, elements);
  r.require_address("dx", args->dx, element, elements);
  r.require_address("gamma", args->gamma, parameter_size(args->dtype), false);
  r.require_address("saved", args->saved, 8, true);
  r.require_address("rows", args->rows, 8, training);
  r.require_address("control", args->control, 8, training);
  return r.status();
}

}  // namespace syncbn

#endif
