// How the CPU library cuts a tensor: every element once, in its channel, at any size. And its 16-bit conversions and
// its rounding.
#include <string.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/element.h"
#include "cpu/lanes.h"
#include "cpu/sums.h"
#include "cpu/table.h"
#include "syncbn.h"

namespace test {
namespace {

using namespace syncbn::cpu;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// The parts of [0, length) follow one another without a gap. Of very many, those at both ends and in the middle.
template <typename RangeOf>
void check_cover(const char *what, int64_t length, int64_t parts, const RangeOf &range_of) {
  constexpr int64_t kNear = 1000;
  CHECK(range_of(0).begin == 0, "%s begin at %lld", what, static_cast<long long>(range_of(0).begin));
  for (int64_t i = 0; i < parts; ++i) {
    if (i > kNear && i < parts / 2) i = std::max(i, parts / 2 - kNear);
    if (i > parts / 2 + kNear) i = std::max(i, parts - kNear);
    const Range range = range_of(i);
    const int64_t next = i + 1 < parts ? range_of(i + 1).begin : length;
    CHECK(range.begin <= range.end && range.end == next, "%s %lld of %lld is [%lld, %lld), the next begins at %lld",
          what, static_cast<long long>(i), static_cast<long long>(parts), static_cast<long long>(range.begin),
          static_cast<long long>(range.end), static_cast<long long>(next));
  }
}

void check_once(const char *what, const std::vector<int> &visits) {
  const auto other = std::find_if(visits.begin(), visits.end(), [](int count) { return count != 1; });
  CHECK(other == visits.end(), "%s: element %zd is visited %d times", what, other - visits.begin(),
        other == visits.end() ? 0 : *other);
}

void check_sums(int64_t outer, int64_t channels_of_all, int64_t inner) {
  const Lanes lanes(outer, channels_of_all, inner);
  const Layout &layout = lanes.layout;
  std::vector<int> visits(static_cast<size_t>(layout.elements()));
  for (int64_t task = 0; task < lanes.tasks(); ++task) {
    const Range channels = lanes.channels(task);
    CHECK(lanes.columns(channels) <= kTileColumns, "%lld columns, super-rows of %d",
          static_cast<long long>(lanes.columns(channels)), lanes.super_row);
    const int64_t repeat = channels.size() * lanes.width();
    int64_t in_part = 0;
    const auto visit = [&](int64_t index, int64_t column) {
      const int64_t channel = index / layout.inner % layout.channels;
      CHECK(column % repeat / lanes.width() == channel - channels.begin,
            "element %lld of channel %lld is in column %lld", static_cast<long long>(index),
            static_cast<long long>(channel), static_cast<long long>(column));
      ++visits[static_cast<size_t>(index)];
      ++in_part;
    };
    int64_t in_task = 0;
    for_each_block(lanes, lanes.rows(task), channels, [&](const Block &block) {
      in_part = 0;
      for_each_part(
          lanes, block, channels,
          [&](int64_t offset, const Runs &runs) {
            CHECK(runs.length >= kRunColumns, "a run of %d", runs.length);
            for (int64_t row = 0; row < runs.rows; ++row) {
              for (int64_t run = 0; run < runs.count; ++run) {
                for (int64_t i = 0; i < runs.length; ++i) {
                  visit(offset + row * runs.gap + run * runs.apart + i, run * kRunColumns);
                }
              }
            }
          },
          [&](int64_t offset, const Rows &rows, int columns) {
            for (int64_t stream = 0; stream < rows.streams; ++stream) {
              for (int64_t row = 0; row < rows.count; ++row) {
                for (int64_t i = 0; i < columns; ++i) visit(offset + stream * rows.gap + row * rows.stride + i, i);
              }
            }
          });
      CHECK(static_cast<double>(in_part) == elements(lanes, block) * static_cast<double>(channels.size()),
            "a block has %lld elements", static_cast<long long>(in_part));
      in_task += in_part;
    });
    CHECK(in_task == layout.elements(lanes.rows(task)) * channels.size(), "a task has %lld elements",
          static_cast<long long>(in_task));
  }
  check_once("sums", visits);
}

void check_map(int64_t outer_of_all, int64_t channels_of_all, int64_t inner_of_all) {
  const Map map(outer_of_all, channels_of_all, inner_of_all);
  const Layout &layout = map.layout;
  std::vector<int> visits(static_cast<size_t>(layout.elements()));
  std::vector<int> single(static_cast<size_t>(layout.elements()));
  for (int64_t task = 0; task < map.tasks(); ++task) {
    const Range channels = map.channels(task);
    const int64_t entries = channels.size() * map.width;
    for_each_span(map, map.rows(task), channels, [&](const Span &span, const Walk &walk) {
      CHECK(walk.period % entries == 0 && walk.period >= kTableOverlap && walk.period + kTableOverlap <= kTableRoom,
            "a period of %d for %lld entries", walk.period, static_cast<long long>(entries));
      for (int64_t row = 0; row < span.rows; ++row) {
        for (int64_t i = 0; i < span.elements; ++i) {
          const int64_t index = span.begin + row * span.apart + i;
          const int64_t entry =
              (walk.first + (walk.inner == 0 ? i : i / walk.inner * kTableOverlap)) % walk.period % entries;
          const int64_t channel = index / layout.inner % layout.channels;
          CHECK(entry / map.width == channel - channels.begin, "element %lld of channel %lld takes entry %lld",
                static_cast<long long>(index), static_cast<long long>(channel), static_cast<long long>(entry));
          ++visits[static_cast<size_t>(index)];
        }
      }
    });
    for_each_element(layout, map.rows(task), channels, [&](int64_t outer, int64_t channel, int64_t inner, int64_t i) {
      CHECK(i == (outer * layout.channels + channel) * layout.inner + inner && inner < layout.inner, "index %lld",
            static_cast<long long>(i));
      ++single[static_cast<size_t>(i)];
    });
  }
  check_once("map", visits);
  check_once("single elements", single);
}

}  // namespace

TEST(lanes_visit_every_element_once) {
  for (const int64_t channels : {1, 3, 5, 16, 63, 64, 129, 300, 2049}) {
    for (const int64_t inner : {1, 2, 7, 15, 16, 17, 49, 196, 255, 256, 257, 1000, 4096, 4097, 9000}) {
      for (const int64_t outer : {1, 2, 7, 64, 129, 1000}) {
        if (outer * channels * inner > 300000) continue;
        const Context context("[%lld, %lld, %lld]", static_cast<long long>(outer), static_cast<long long>(channels),
                              static_cast<long long>(inner));
        check_sums(outer, channels, inner);
        check_map(outer, channels, inner);
      }
    }
  }
}

// Up to the largest tensors there can be, without their memory.
TEST(lanes_cover_the_largest_tensors) {
  for (const int64_t channels : {1, 2, 3, 5, 16, 63, 64, 100, 129, 257, 1000, 2048, 2049, 5000, 100000}) {
    for (const int64_t inner :
         {int64_t{1}, int64_t{4}, int64_t{49}, int64_t{255}, int64_t{256}, int64_t{5000}, (int64_t{1} << 33) + 1}) {
      for (const int64_t outer :
           {int64_t{1}, int64_t{2}, int64_t{127}, int64_t{4099}, int64_t{1} << 33, kMax / 8 / channels / inner}) {
        if (outer > kMax / 8 / channels / inner) continue;
        const Context context("[%lld, %lld, %lld]", static_cast<long long>(outer), static_cast<long long>(channels),
                              static_cast<long long>(inner));
        const Lanes lanes(outer, channels, inner);
        const Layout &layout = lanes.layout;
        const Range all = {0, layout.rows()};
        CHECK(layout.elements(all) == outer * inner, "%lld elements of a channel",
              static_cast<long long>(layout.elements(all)));
        check_cover("pieces", inner, layout.pieces, [&](int64_t i) { return layout.run(i); });
        CHECK(lanes.lanes >= 1 && lanes.lanes <= max_lanes(channels), "%lld lanes",
              static_cast<long long>(lanes.lanes));
        CHECK(lanes.lanes * channels * kLaneValues * 8 <= workspace_bytes(channels), "the workspace is too small");
        check_cover("lanes", layout.rows(), lanes.lanes,
                    [&](int64_t i) { return lanes.rows(i * lanes.tiles.count()); });
        check_cover("tiles", channels, lanes.tiles.count(), [&](int64_t i) { return lanes.channels(i); });
        const Map map(outer, channels, inner);
        check_cover("rows of tasks", map.layout.rows(), map.parts,
                    [&](int64_t i) { return map.rows(map.parts - 1 - i); });
        check_cover("tiles", channels, map.tiles.count(), [&](int64_t i) { return map.channels(i * map.parts); });
        CHECK(map.tasks() == map.parts * map.tiles.count(), "%lld tasks", static_cast<long long>(map.tasks()));
      }
    }
  }
}

TEST(tables_are_periodic) {
  for (const int64_t inner : {1, 3, 15, 16, 100}) {
    for (const int channels : {1, 3, 31, 32, 33, 128}) {
      const Map map(1, channels, inner);
      std::vector<float> factor(kTableRoom, -1);
      for (int c = 0; c < channels; ++c) factor[static_cast<size_t>(c)] = static_cast<float>(c);
      to_table(map, channels, factor.data());
      const int period = table_period(channels * map.width);
      for (int i = 0; i < period + kTableOverlap; ++i) {
        CHECK(factor[static_cast<size_t>(i)] == static_cast<float>(i / map.width % channels), "factor %d of %d", i,
              channels);
      }
    }
  }
}

// Every value of a 16-bit type is itself; all NaNs become one.
template <typename T>
void check_values(int32_t exponent_bits, int32_t mantissa_bits) {
  const double bias = (1 << (exponent_bits - 1)) - 1;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const T element16 = {static_cast<uint16_t>(bits)};
    const uint32_t exponent = bits >> mantissa_bits & ((1u << exponent_bits) - 1);
    const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
    const double sign = bits >> 15 ? -1 : 1;
    const float got = value(element16);
    if (exponent == (1u << exponent_bits) - 1) {
      CHECK(mantissa == 0 ? got == sign * INFINITY : std::isnan(got) && std::signbit(got) == (sign < 0), "%04x is %g",
            bits, static_cast<double>(got));
    } else {
      const double whole = exponent == 0 ? mantissa : mantissa + (1u << mantissa_bits);
      const double want = sign * std::ldexp(whole, static_cast<int>(std::max(exponent, 1u) - bias - mantissa_bits));
      CHECK(static_cast<double>(got) == want && std::signbit(got) == (sign < 0), "%04x is %g, want %g", bits,
            static_cast<double>(got), want);
    }
    const uint32_t nan = ((1u << (exponent_bits + 1)) - 1) << (mantissa_bits - 1);
    CHECK(element<T>(got).bits == (std::isnan(got) ? nan : bits), "%04x becomes %04x", bits, element<T>(got).bits);
  }
}

// A value between two neighbours becomes the nearer one, in the middle the even one. Beyond the largest: infinity.
template <typename T>
void check_rounding(uint32_t infinity) {
  for (uint32_t bits = 0; bits < infinity; ++bits) {
    const auto neighbour = [&](uint32_t b) {
      // What would follow the largest, if there were such an exponent.
      const T a = {static_cast<uint16_t>(b - 1)};
      const T c = {static_cast<uint16_t>(b - 2)};
      return b < infinity ? static_cast<double>(value(T{static_cast<uint16_t>(b)}))
                          : 2 * static_cast<double>(value(a)) - static_cast<double>(value(c));
    };
    const double low = neighbour(bits);
    const double high = neighbour(bits + 1);
    const float middle = static_cast<float>((low + high) / 2);
    if (static_cast<double>(middle) != (low + high) / 2) continue;  // a denormal bfloat16 and half of it
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    const auto check = [&](float x, uint32_t want) {
      CHECK(element<T>(x).bits == want && element<T>(-x).bits == (want | 0x8000u), "%.9g becomes %04x, want %04x",
            static_cast<double>(x), element<T>(x).bits, want);
    };
    check(middle, even);
    check(std::nextafter(middle, 0.0f), bits);
    check(std::nextafter(middle, INFINITY), bits + 1);
  }
}

TEST(conversions_of_16_bits) {
  check_values<Half>(5, 10);
  check_values<Bfloat16>(8, 7);
  check_rounding<Half>(0x7c00);
  check_rounding<Bfloat16>(0x7f80);
}

// y = x * gamma + beta by the library, on this processor.
template <typename T>
void multiply_and_add(int32_t dtype, const std::vector<T> &x, float gamma, float beta, std::vector<T> &y) {
  const float mean = 0;
  const float variance = 1;
  syncbn_normalize_args args = {};
  args.struct_size = sizeof args;
  args.dtype = dtype;
  args.outer = static_cast<int64_t>(x.size());
  args.channels = args.inner = args.world_size = 1;
  args.x = reinterpret_cast<syncbn_address>(x.data());
  args.y = reinterpret_cast<syncbn_address>(y.data());
  args.gamma = reinterpret_cast<syncbn_address>(&gamma);
  args.beta = reinterpret_cast<syncbn_address>(&beta);
  args.moving_mean = reinterpret_cast<syncbn_address>(&mean);
  args.moving_variance = reinterpret_cast<syncbn_address>(&variance);
  CHECK(syncbn_cpu_normalize(&args) == SYNCBN_OK, "%s", syncbn_cpu_last_error());
}

// The loops convert as element.h does.
template <typename T>
void check_library(int32_t dtype) {
  std::vector<T> x(0x10000), y(0x10000);
  for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<uint16_t>(i);
  for (const float gamma : {1.0f, 0.3333333f, -3e-5f, 1e-38f, 7e4f, 65519.99f, 2e38f}) {
    multiply_and_add(dtype, x, gamma, 0, y);
    for (size_t i = 0; i < x.size(); ++i) {
      const T want = element<T>(multiply_add(value(x[i]), gamma, 0.0f));
      CHECK(y[i].bits == want.bits, "%04zx times %g is %04x, want %04x", i, static_cast<double>(gamma), y[i].bits,
            want.bits);
    }
  }
}

TEST(loops_convert_like_single_elements) {
  check_library<Half>(SYNCBN_FLOAT16);
  check_library<Bfloat16>(SYNCBN_BFLOAT16);
}

// Half the products are half-way between two floats, and beta, far below a double's last place, says where to; others
// are denormal. With every instruction set: cpu_isa_test.cpp.
TEST(products_and_sums_are_rounded_once) {
  std::vector<float> x, y;
  for (int i = 0; i < 4096; i += 5) x.push_back(1 + std::ldexp(static_cast<float>(i), -12));
  for (size_t i = x.size(); i-- > 0;) x.push_back(std::ldexp(-x[i], -80));
  for (const float special : {0.0f, INFINITY, -INFINITY, NAN}) x.push_back(special);
  y.resize(x.size());
  for (const float gamma : {1 + 0x1p-12f, 1 + 0x777p-12f, -1 - 0x321p-12f, 0x1.246p-60f, 0x1.357p60f}) {
    for (const float beta : {0.0f, 0x1p-60f, -0x1p-60f, -1.0f, 0x1p-149f, -0x1p-140f, 0x1p100f}) {
      multiply_and_add(SYNCBN_FLOAT32, x, gamma, beta, y);
      for (size_t i = 0; i < x.size(); ++i) {
        const float want = std::fmaf(x[i], gamma, beta);
        CHECK(y[i] == want || (std::isnan(y[i]) && std::isnan(want)), "%a * %a + %a is %a, want %a",
              static_cast<double>(x[i]), static_cast<double>(gamma), static_cast<double>(beta),
              static_cast<double>(y[i]), static_cast<double>(want));
      }
    }
  }
}

}  // namespace test
