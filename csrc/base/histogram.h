// Histogram of magnitudes, for calibration.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyedge {

// Adds to counts[0..bins) one for each value that is not zero: |x| in [0, absmax] falls into bin
// min(int(|x| / absmax * bins), bins - 1), in f32. A value that is not a number is left out, one
// beyond absmax falls into the last bin. absmax must be positive.
void histogram_abs(const float* values, size_t count, int32_t bins, float absmax, int64_t* counts);

}  // namespace pyedge
