#include "base/histogram.h"

#include <cmath>

namespace pyedge {

void histogram_abs(const float* values, size_t count, int32_t bins, float absmax, int64_t* counts) {
  const float last = static_cast<float>(bins - 1), width = static_cast<float>(bins);
  for (size_t i = 0; i < count; ++i) {
    const float magnitude = std::fabs(values[i]);
    if (!(magnitude > 0.0f)) continue;
    const float position = magnitude / absmax * width;
    ++counts[static_cast<size_t>(position < last ? position : last)];
  }
}

}  // namespace pyedge
