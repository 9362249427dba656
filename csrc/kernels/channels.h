// A window of pixels summed up channel by channel: the loop that pools and reductions have in
// common and that the compiler vectorizes.
#pragma once

#include <cstring>

#include "kernels/kernel.h"

namespace pyedge {
namespace {

struct ChannelWindow {
  int32_t rows, columns;
  size_t row_stride, column_stride;  // in elements
};

// y[c] = finish(acc) for n channels, where acc = combine(acc, x) from `start` on, for each pixel,
// row by row. A cache line of channels at a time: what is read behind the last channel, within
// kSlack, is computed and dropped.
template <typename T, typename Acc, typename Combine, typename Finish>
inline void for_each_channel(const T* x, T* y, size_t n, const ChannelWindow& window, Acc start,
                             Combine combine, Finish finish) {
  constexpr size_t kLanes = kSlack / sizeof(T);
  for (size_t c = 0; c < n; c += kLanes) {
    Acc acc[kLanes];
    T result[kLanes];
    for (size_t lane = 0; lane < kLanes; ++lane) acc[lane] = start;
    for (int32_t row = 0; row < window.rows; ++row) {
      const T* pixel = x + c + static_cast<size_t>(row) * window.row_stride;
      for (int32_t column = 0; column < window.columns; ++column, pixel += window.column_stride) {
// GCC 12 would unroll this loop before it could vectorize it.
#pragma GCC unroll 1
        for (size_t lane = 0; lane < kLanes; ++lane) acc[lane] = combine(acc[lane], pixel[lane]);
      }
    }
    for (size_t lane = 0; lane < kLanes; ++lane) result[lane] = finish(acc[lane]);
    if (n - c >= kLanes) {
      std::memcpy(y + c, result, sizeof result);
    } else {
      std::memcpy(y + c, result, (n - c) * sizeof(T));
    }
  }
}

}  // namespace
}  // namespace pyedge
