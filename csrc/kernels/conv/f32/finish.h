// What follows the accumulator, over a vector type. Internal linkage.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyedge {
namespace {

// y = clamp(prelu(acc + residual)) for the first `lanes` lanes; residual and slope may be null.
template <class V>
void finish(typename V::Vector acc, const float* residual, const float* slope,
            typename V::Vector lo, typename V::Vector hi, float* y, size_t lanes) {
  if (residual) acc = V::add(acc, V::load(residual));
  if (slope) acc = V::prelu(acc, V::load(slope));
  acc = V::clamp(acc, lo, hi);
  if (lanes >= static_cast<size_t>(V::kLanes)) {
    V::store(y, acc);
  } else {
    V::store_first(y, acc, static_cast<int32_t>(lanes));
  }
}

}  // namespace
}  // namespace pyedge
