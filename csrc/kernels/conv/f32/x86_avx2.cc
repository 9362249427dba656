// vfmadd231ps on ymm: a tile of 6 pixels x 16 channels in 12 accumulators, which cover the
// latency of two multiply-adds a cycle.
#include "kernels/conv/f32/dense_tile.h"
#include "kernels/conv/f32/depthwise_row.h"
#include "kernels/conv/f32/winograd_tile.h"
#include "kernels/simd/f32_avx2.h"

namespace pyedge {
namespace {

constexpr F32Dense kDense = {
    F32Avx2::kLanes, 6, {kTiles<F32Avx2, 1, 6>.by_pixels, kTiles<F32Avx2, 2, 6>.by_pixels}, 1.5};
constexpr F32Depthwise kDepthwise = {kDense.lanes, kDense.cost, depthwise_row<F32Avx2>};

constexpr F32Winograd kWinograd2 = f32_winograd<F32Avx2, Winograd2, kDense>();
constexpr F32Winograd kWinograd4 = f32_winograd<F32Avx2, Winograd4, kDense>();

}  // namespace

extern const Kernel conv_f32_avx2 = f32_dense_kernel<kDense>("conv_f32_avx2", Isa::avx2);
extern const Kernel conv_f32_depthwise_avx2 =
    f32_depthwise_kernel<kDepthwise>("conv_f32_depthwise_avx2", Isa::avx2);
extern const Kernel conv_f32_winograd2_avx2 =
    f32_winograd_kernel<kWinograd2>("conv_f32_winograd2_avx2", Isa::avx2);
extern const Kernel conv_f32_winograd4_avx2 =
    f32_winograd_kernel<kWinograd4>("conv_f32_winograd4_avx2", Isa::avx2);

}  // namespace pyedge
