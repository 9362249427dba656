// The loops over rows, columns and channels, compiled for the reference and again for each
// instruction set whose compiler vectorizes them.
#pragma once

#include "kernels/resize/resize.h"

namespace pyedge {
namespace {

// Element of the first channel of the first pixel of an input row.
size_t row_start(const OpArgs& args, size_t image, int32_t row) {
  const Shape& x = args.inputs[0].shape;
  return (image * static_cast<size_t>(x[1]) + static_cast<size_t>(row)) *
         static_cast<size_t>(x[2]) * static_cast<size_t>(x[3]);
}

template <typename T, typename Convert>
void run_nearest(const OpArgs& args, size_t begin, size_t end, Convert convert) {
  const ResizeAxis height = resize_axis(args, 1), width = resize_axis(args, 2);
  const size_t channels = static_cast<size_t>(args.inputs[0].shape[3]);
  const size_t out_h = static_cast<size_t>(height.out);
  T* y = args.outputs[0].mutable_as<T>() + begin * static_cast<size_t>(width.out) * channels;
  for (size_t row = begin; row < end; ++row) {
    const int32_t source = nearest_index(height, static_cast<int32_t>(row % out_h));
    const T* line = args.inputs[0].as<T>() + row_start(args, row / out_h, source);
    for (int32_t column = 0; column < width.out; ++column) {
      const T* x = line + static_cast<size_t>(nearest_index(width, column)) * channels;
      for (size_t c = 0; c < channels; ++c) y[c] = convert(x[c]);
      y += channels;
    }
  }
}

template <typename T, typename Load, typename Store>
void run_linear(const OpArgs& args, size_t begin, size_t end, Load load, Store store) {
  const ResizeAxis height = resize_axis(args, 1), width = resize_axis(args, 2);
  const size_t channels = static_cast<size_t>(args.inputs[0].shape[3]);
  const size_t out_h = static_cast<size_t>(height.out);
  T* y = args.outputs[0].mutable_as<T>() + begin * static_cast<size_t>(width.out) * channels;
  for (size_t row = begin; row < end; ++row) {
    const LinearIndex v = linear_index(height, static_cast<int32_t>(row % out_h));
    const T* top = args.inputs[0].as<T>() + row_start(args, row / out_h, v.first);
    const T* bottom = args.inputs[0].as<T>() + row_start(args, row / out_h, v.second);
    for (int32_t column = 0; column < width.out; ++column) {
      const LinearIndex h = linear_index(width, column);
      const size_t left = static_cast<size_t>(h.first) * channels;
      const size_t right = static_cast<size_t>(h.second) * channels;
      for (size_t c = 0; c < channels; ++c) {
        const float x00 = load(top[left + c]), x01 = load(top[right + c]);
        const float x10 = load(bottom[left + c]), x11 = load(bottom[right + c]);
        const float above = x00 + (x01 - x00) * h.weight;
        const float below = x10 + (x11 - x10) * h.weight;
        y[c] = store(above + (below - above) * v.weight);
      }
      y += channels;
    }
  }
}

void run_resize(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const TensorView &x = args.inputs[0], &y = args.outputs[0];
  const bool nearest = args.ints[0] == kNearest;
  const auto same = [](auto v) { return v; };
  if (x.dtype == DType::kF32) {
    if (nearest) {
      run_nearest<float>(args, begin, end, same);
    } else {
      run_linear<float>(args, begin, end, same, same);
    }
    return;
  }
  const Rescale rescale = make_rescale(x.quant, y.quant);
  if (!nearest) {
    const auto load = [=](int8_t q) { return static_cast<float>(q - rescale.zero_in); };
    run_linear<int8_t>(args, begin, end, load, rescale);
  } else if (same_quant(x, y)) {
    run_nearest<int8_t>(args, begin, end, same);
  } else {
    run_nearest<int8_t>(args, begin, end, rescale);
  }
}

}  // namespace
}  // namespace pyedge
