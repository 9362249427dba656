// f32: as AVX-512. i8: tdpbssd, 16 x 16 x 64 multiply-adds.
#include "kernels/peak/peak.h"
#include "kernels/simd/tiles_amx.h"

namespace pyedge {
namespace {

double f32(size_t rounds) { return peak_avx512vnni.f32(rounds); }

// Six sums, as a product follows the one before it after 16 cycles and takes 52. The tiles are
// zero: how long a product takes does not depend on what is in them.
double i8(size_t rounds) {
  AmxConfig config{};
  config.palette = 1;
  for (size_t tile = 0; tile < 8; ++tile) config.rows[tile] = 16, config.row_bytes[tile] = 64;
  AmxTiles::configure(config);
  for (size_t round = 0; round < rounds; ++round) {
    AmxTiles::dot<0, 6, 7>();
    AmxTiles::dot<1, 6, 7>();
    AmxTiles::dot<2, 6, 7>();
    AmxTiles::dot<3, 6, 7>();
    AmxTiles::dot<4, 6, 7>();
    AmxTiles::dot<5, 6, 7>();
  }
  AmxTiles::release();
  return 2.0 * 16 * 16 * 64 * 6 * static_cast<double>(rounds);
}

}  // namespace

const PeakProbe peak_amx = {f32, i8};

}  // namespace pyedge
