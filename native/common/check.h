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
    require(args.outer >= 0, SYNCBN_INVALID_ARGUMENT, "outer is %lld; it must not be negative", count(args.outer));
    require_channels(args.channels);
    require(args.inner >= 0, SYNCBN_INVALID_ARGUMENT, "inner is %lld; it must not be negative", count(args.inner));
    if (!hold()) return;
    int64_t bytes = 0;
    require(!__builtin_mul_overflow(args.outer, args.channels, &bytes) &&
                !__builtin_mul_overflow(bytes, args.inner, &bytes) &&
                !__builtin_mul_overflow(bytes, element_size(args.dtype), &bytes),
            SYNCBN_INVALID_ARGUMENT, "outer %lld x channels %lld x inner %lld: a tensor must stay below 2^63 bytes",
            count(args.outer), count(args.channels), count(args.inner));
  }

  // row_length: the float64 of one row.
  void require_world(int32_t world_size, int64_t channels, int64_t row_length) {
    require(world_size >= 1, SYNCBN_INVALID_ARGUMENT, "world_size is %d; it must be at least 1", world_size);
    if (!hold()) return;
    int64_t bytes = 0;
    require(!__builtin_mul_overflow(row_length * 8, static_cast<int64_t>(world_size), &bytes), SYNCBN_INVALID_ARGUMENT,
            "world_size %d x channels %lld: rows must stay below 2^63 bytes", world_size, count(channels));
  }

  void require_rank(int32_t rank, int32_t world_size) {
    require(rank >= 0 && rank < world_size, SYNCBN_INVALID_ARGUMENT,
            "rank is %d; it must be at least 0 and below world_size, which is %d", rank, world_size);
  }

  void require_flag(const char *name, int32_t flag) {
    require(flag == 0 || flag == 1, SYNCBN_INVALID_ARGUMENT, "%s is %d; it must be 0 or 1", name, flag);
  }

  void require_finite(const char *name, double value) {
    require(std::isfinite(value), SYNCBN_INVALID_ARGUMENT, "%s is %g; it must be finite", name, value);
  }

  void require_number(const char *name, double value) {
    require(!std::isnan(value), SYNCBN_INVALID_ARGUMENT, "%s is NaN; it must be a number", name);
  }

  template <typename Args>
  void require_mask(const Args &args) {
    const int64_t strides[] = {args.mask_outer_stride, args.mask_channel_stride, args.mask_inner_stride};
    for (const int64_t stride : strides) {
      require(args.mask == 0 || stride >= 0, SYNCBN_INVALID_ARGUMENT,
              "a mask's stride is %lld; it must not be negative", count(stride));
    }
  }

  template <typename Args>
  void require_adjustment(const Args &args) {
    require((args.adjust_scale != 0) == (args.adjust_bias != 0), SYNCBN_INVALID_ARGUMENT,
            "adjust_%s is null; adjust_scale and adjust_bias come together", args.adjust_scale == 0 ? "scale" : "bias");
    require_address("adjust_scale", args.adjust_scale, parameter_size(args.dtype), false);
    require_address("adjust_bias", args.adjust_bias, parameter_size(args.dtype), false);
  }

  // Called once rank and element_size hold.
  void require_copy(const syncbn_copy_args &args) {
    int64_t bytes = args.element_size;
    bool overflow = false;
    bool elements = true;
    for (int i = 0; i < args.rank; ++i) {
      require(args.shape[i] >= 0, SYNCBN_INVALID_ARGUMENT, "shape[%d] is %lld; it must not be negative", i,
              count(args.shape[i]));
      require(args.source_strides[i] >= 0, SYNCBN_INVALID_ARGUMENT,
              "source_strides[%d] is %lld; it must not be negative", i, count(args.source_strides[i]));
      require(args.destination_strides[i] >= 0, SYNCBN_INVALID_ARGUMENT,
              "destination_strides[%d] is %lld; it must not be negative", i, count(args.destination_strides[i]));
      elements = elements && args.shape[i] != 0;
      overflow = overflow || __builtin_mul_overflow(bytes, args.shape[i], &bytes);
    }
    require(!overflow || !elements, SYNCBN_INVALID_ARGUMENT, "the shape has more than 2^63 - 1 bytes");
    require_address("source", args.source, args.element_size, elements);
    require_address("destination", args.destination, args.element_size, elements);
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

// float64 in one row.
constexpr int64_t forward_row_length(int64_t channels, bool channel_counts) {
  return kForwardRowHead + (channel_counts ? 3 : 2) * channels;
}
constexpr int64_t backward_row_length(int64_t channels) { return kBackwardRowHead + 2 * channels; }

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
  r.require_flag("channel_counts", args->channel_counts);
  r.require_world(args->world_size, args->channels, forward_row_length(args->channels, args->channel_counts != 0));
  r.require_rank(args->rank, args->world_size);
  r.require_signature(args->signature);
  r.require_address("x", args->x, element_size(args->dtype), has_elements(args->outer, args->inner));
  r.require_address("rows", args->rows, 8, true);
  r.require_address("workspace", args->workspace, 8, true);
  r.require_mask(*args);
  return r.status();
}

inline int check(const syncbn_normalize_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_normalize_args")) return r.status();
  r.require_shape(*args);
  r.require(args->statistics >= SYNCBN_MOVING && args->statistics <= SYNCBN_SAVED, SYNCBN_INVALID_ARGUMENT,
            "statistics is %d; it must be one of syncbn_statistics (0 .. 2)", args->statistics);
  r.require_flag("channel_counts", args->channel_counts);
  r.require_flag("relu", args->relu);
  r.require_flag("renorm", args->renorm);
  r.require_flag("unbiased", args->unbiased);
  r.require_flag("cumulative", args->cumulative);
  r.require_world(args->world_size, args->channels, forward_row_length(args->channels, args->channel_counts != 0));
  const bool batch = args->statistics == SYNCBN_BATCH;
  const bool renorm = batch && args->renorm != 0;
  if (batch) r.require_signature(args->signature);
  r.require(args->epsilon >= 0 && std::isfinite(args->epsilon), SYNCBN_INVALID_ARGUMENT,
            "epsilon is %g; it must be finite and not negative", args->epsilon);
  if (batch) r.require_finite("decay", args->decay);
  if (renorm) {
    r.require_finite("renorm_decay", args->renorm_decay);
    r.require_number("r_min", args->r_min);
    r.require_number("r_max", args->r_max);
    r.require_number("d_max", args->d_max);
  }
  const int64_t element = element_size(args->dtype);
  const int64_t parameter = parameter_size(args->dtype);
  const bool elements = has_elements(args->outer, args->inner);
  const bool moving = args->statistics != SYNCBN_SAVED;
  r.require_address("x", args->x, element, elements);
  r.require_address("y", args->y, element, elements);
  r.require_address("residual", args->residual, element, false);
  r.require_address("gamma", args->gamma, parameter, false);
  r.require_address("beta", args->beta, parameter, false);
  r.require_address("rows", args->rows, 8, batch);
  r.require_address("moving_mean", args->moving_mean, parameter, moving);
  r.require_address("moving_variance", args->moving_variance, parameter, moving);
  r.require_address("moving_stddev", args->moving_stddev, parameter, renorm);
  r.require_address("renorm_mean", args->renorm_mean, parameter, renorm);
  r.require_address("renorm_stddev", args->renorm_stddev, parameter, renorm);
  r.require_address("saved", args->saved, 8, args->statistics == SYNCBN_SAVED);
  r.require_address("control", args->control, 8, batch);
  r.require_address("workspace", args->workspace, 8, batch);
  r.require_address("updates", args->updates, 8, batch && args->cumulative != 0);
  r.require_adjustment(*args);
  return r.status();
}

inline int check(const syncbn_backward_reduce_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_backward_reduce_args")) return r.status();
  r.require_shape(*args);
  r.require_flag("relu", args->relu);
  r.require_world(args->world_size, args->channels, backward_row_length(args->channels));
  r.require_rank(args->rank, args->world_size);
  r.require_signature(args->signature);
  const int64_t element = element_size(args->dtype);
  const int64_t parameter = parameter_size(args->dtype);
  const bool elements = has_elements(args->outer, args->inner);
  r.require_address("x", args->x, element, elements);
  r.require_address("dy", args->dy, element, elements);
  r.require_address("dresidual", args->dresidual, element, false);
  r.require_address("saved", args->saved, 8, true);
  r.require_address("rows", args->rows, 8, false);
  r.require_address("gamma", args->gamma, parameter, false);
  r.require_address("beta", args->beta, parameter, false);
  r.require_address("gamma_grad", args->gamma_grad, parameter, false);
  r.require_address("beta_grad", args->beta_grad, parameter, false);
  r.require_address("workspace", args->workspace, 8, true);
  r.require_mask(*args);
  r.require_adjustment(*args);
  return r.status();
}

inline int check(const syncbn_backward_input_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_backward_input_args")) return r.status();
  r.require_shape(*args);
  r.require_flag("training", args->training);
  r.require_flag("relu", args->relu);
  r.require_world(args->world_size, args->channels, backward_row_length(args->channels));
  const bool training = args->training != 0;
  if (training) r.require_signature(args->signature);
  const int64_t element = element_size(args->dtype);
  const int64_t parameter = parameter_size(args->dtype);
  const bool elements = has_elements(args->outer, args->inner);
  r.require_address("x", args->x, element, elements && (training || args->relu != 0));
  r.require_address("dy", args->dy, element, elements);
  r.require_address("dx", args->dx, element, elements);
  r.require_address("gamma", args->gamma, parameter, false);
  r.require_address("beta", args->beta, parameter, false);
  r.require_address("saved", args->saved, 8, true);
  r.require_address("rows", args->rows, 8, training);
  r.require_address("control", args->control, 8, training);
  r.require_mask(*args);
  r.require_adjustment(*args);
  return r.status();
}

inline int check(const syncbn_copy_args *args, Error &error) {
  Requirements r(error);
  if (!r.require_struct(args, "syncbn_copy_args")) return r.status();
  const int32_t size = args->element_size;
  r.require(size == 1 || size == 2 || size == 4 || size == 8, SYNCBN_INVALID_ARGUMENT,
            "element_size is %d; it must be 1, 2, 4 or 8", size);
  r.require(args->rank >= 0 && args->rank <= SYNCBN_MAX_RANK, SYNCBN_INVALID_ARGUMENT, "rank is %d; it must be 0 .. %d",
            args->rank, SYNCBN_MAX_RANK);
  if (!r.hold()) return r.status();
  r.require_copy(*args);
  return r.status();
}

}  // namespace syncbn

#endif
