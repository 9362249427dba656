// fmla by lane: a tile of 8 pixels x 8 channels in 16 accumulators, with a vector of each pixel
// and two of weights in the other registers.
#include "kernels/conv/f32/dense_tile.h"
#include "kernels/conv/f32/depthwise_row.h"
#include "kernels/conv/f32/winograd_tile.h"
#include "kernels/simd/f32_neon.h"

namespace pyedge {
namespace {

constexpr F32Dense kDense = {
    F32Neon::kLanes, 8, {kTiles<F32Neon, 1, 8>.by_pixels, kTiles<F32Neon, 2, 8>.by_pixels}, 1.0};
constexpr F32Depthwise kDepthwise = {kDense.lanes, kDense.cost, depthwise_row<F32Neon>};
constexpr F32Winograd kWinograd2 = f32_winograd<F32Neon, Winograd2, kDense>();
constexpr F32Winograd kWinograd4 = f32_winograd<F32Neon, Winograd4, kDense>();

}  // namespace

extern const Kernel conv_f32_neon = f32_dense_kernel<kDense>("conv_f32_neon", Isa::neon);
extern const Kernel conv_f32_depthwise_neon =
    f32_depthwise_kernel<kDepthwise>("conv_f32_depthwise_neon", Isa::neon);
extern const Kernel conv_f32_winograd2_neon =
    f32_winograd_kernel<kWinograd2>("conv_f32_winograd2_neon", Isa::neon);
extern const Kernel conv_f32_winograd4_neon =
    f32_winograd_kernel<kWinograd4>("conv_f32_winograd4_neon", Isa::neon);

}  // namespace pyedge
