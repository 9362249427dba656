// vfmadd231ps on zmm: a tile of 14 pixels x 32 channels in 28 accumulators. Images of face
// networks are 7 x 2^n wide, so 14 divides most of them.
#include "kernels/conv/f32/dense_tile.h"
#include "kernels/conv/f32/depthwise_row.h"
#include "kernels/conv/f32/winograd_tile.h"
#include "kernels/simd/f32_avx512.h"

namespace pyedge {
namespace {

constexpr F32Dense kDense = {
    F32Avx512::kLanes,
    14,
    {kTiles<F32Avx512, 1, 14>.by_pixels, kTiles<F32Avx512, 2, 14>.by_pixels},
    1.0};
constexpr F32Depthwise kDepthwise = {kDense.lanes, kDense.cost, depthwise_row<F32Avx512>};

constexpr F32Winograd kWinograd2 = f32_winograd<F32Avx512, Winograd2, kDense>();
constexpr F32Winograd kWinograd4 = f32_winograd<F32Avx512, Winograd4, kDense>();

}  // namespace

extern const Kernel conv_f32_avx512vnni =
    f32_dense_kernel<kDense>("conv_f32_avx512vnni", Isa::avx512vnni);
extern const Kernel conv_f32_depthwise_avx512vnni =
    f32_depthwise_kernel<kDepthwise>("conv_f32_depthwise_avx512vnni", Isa::avx512vnni);
extern const Kernel conv_f32_winograd2_avx512vnni =
    f32_winograd_kernel<kWinograd2>("conv_f32_winograd2_avx512vnni", Isa::avx512vnni);
extern const Kernel conv_f32_winograd4_avx512vnni =
    f32_winograd_kernel<kWinograd4>("conv_f32_winograd4_avx512vnni", Isa::avx512vnni);

}  // namespace pyedge
