// Scalar pooling: a task is a pixel, each channel walks its window by itself.
#include <limits>

#include "kernels/pool/pool.h"

namespace pyedge {
namespace {

size_t tasks(const OpArgs& args) { return elements_between(args.outputs[0].shape, 0, 3); }

// Calls use(x) for each tap of the window in one channel, row by row.
template <typename T, typename Use>
void for_each_tap(const T* x, const PoolGeometry& g, const PoolWindow& window, Use use) {
  const size_t channels = static_cast<size_t>(g.channels);
  for (int32_t row = 0; row < window.rows; ++row) {
    const T* line = x + static_cast<size_t>(row) * static_cast<size_t>(g.in_w) * channels;
    for (int32_t column = 0; column < window.columns; ++column) {
      use(line[static_cast<size_t>(column) * channels]);
    }
  }
}

// Calls pool(x, window) with the first tap of each output element of the tasks.
template <typename T, typename Pool>
void for_each_output(const OpArgs& args, size_t begin, size_t end, Pool pool) {
  const PoolGeometry g = pool_geometry(args);
  const size_t channels = static_cast<size_t>(g.channels);
  const T* x = args.inputs[0].as<T>();
  T* y = args.outputs[0].mutable_as<T>();
  for (size_t pixel = begin; pixel < end; ++pixel) {
    const PoolWindow window = pool_window(g, pixel);
    for (size_t c = 0; c < channels; ++c) {
      y[pixel * channels + c] = pool(x + window.first + c, g, window);
    }
  }
}

void run_max_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  for_each_output<float>(
      args, begin, end, [](const float* x, const PoolGeometry& g, const PoolWindow& window) {
        float greatest = -std::numeric_limits<float>::infinity();
        for_each_tap(x, g, window, [&](float v) { greatest = v > greatest ? v : greatest; });
        return greatest;
      });
}

void run_max_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const bool same = same_quant(args.inputs[0], args.outputs[0]);
  const Rescale rescale = make_rescale(args.inputs[0].quant, args.outputs[0].quant);
  for_each_output<int8_t>(
      args, begin, end, [&](const int8_t* x, const PoolGeometry& g, const PoolWindow& window) {
        int8_t greatest = -128;
        for_each_tap(x, g, window, [&](int8_t v) { greatest = v > greatest ? v : greatest; });
        return same ? greatest : rescale(greatest);
      });
}

void run_average_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  for_each_output<float>(
      args, begin, end, [](const float* x, const PoolGeometry& g, const PoolWindow& window) {
        double sum = 0.0;
        for_each_tap(x, g, window, [&](float v) { sum += static_cast<double>(v); });
        return static_cast<float>(sum / window.count);
      });
}

void run_average_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Quant in = args.inputs[0].quant, out = args.outputs[0].quant;
  for_each_output<int8_t>(args, begin, end,
                          [&](const int8_t* x, const PoolGeometry& g, const PoolWindow& window) {
                            int32_t sum = 0;
                            for_each_tap(x, g, window, [&](int8_t v) { sum += v - in.zero_point; });
                            return make_rescale(in, out, window.count)(static_cast<float>(sum));
                          });
}

}  // namespace

extern const Kernel max_pool_f32_reference = plain_kernel(
    "max_pool_f32_reference", Op::k_max_pool, Isa::reference, accepts_pool_f32, tasks, run_max_f32);
extern const Kernel max_pool_i8_reference = plain_kernel(
    "max_pool_i8_reference", Op::k_max_pool, Isa::reference, accepts_pool_i8, tasks, run_max_i8);
extern const Kernel average_pool_f32_reference =
    plain_kernel("average_pool_f32_reference", Op::k_average_pool, Isa::reference, accepts_pool_f32,
                 tasks, run_average_f32);
extern const Kernel average_pool_i8_reference =
    plain_kernel("average_pool_i8_reference", Op::k_average_pool, Isa::reference, accepts_pool_i8,
                 tasks, run_average_i8);

}  // namespace pyedge
