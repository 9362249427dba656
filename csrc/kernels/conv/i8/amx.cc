#include "kernels/conv/i8/amx.h"

#include "kernels/conv/conv.h"
#include "kernels/conv/i8/dense.h"

namespace pyedge {
namespace {

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

size_t all_steps(const ConvGeometry& g) {
  return divide_up(g.taps() * static_cast<size_t>(g.group_in_c), 4);
}

// Cycles for 64 channels: a product of tiles takes 16 and makes 16 of them; vpdpbusd makes 16 of
// a pixel, two a cycle. Both finish a pixel; rows are packed once for all channels; configuring
// and releasing the tiles takes as long as some products.
double cost(const ConvGeometry& g, size_t products, bool packs) {
  constexpr double kFinish = 12.0, kPackStep = 0.4, kConfigure = 256.0;
  const double pixels = static_cast<double>(g.pixels()), steps = static_cast<double>(all_steps(g));
  const double panels = static_cast<double>(divide_up(static_cast<size_t>(g.group_out_c), 64));
  const double packing = pixels * steps * kPackStep, finishing = pixels * kFinish * panels;
  const double tiles = kConfigure + static_cast<double>(products) * 4 * 16 * panels + finishing +
                       (packs ? packing : 0.0);
  return tiles / (pixels * steps * 2 * panels + finishing + packing);
}

}  // namespace

AmxConfig amx_tiles(size_t rows, size_t steps) {
  AmxConfig config{};
  config.palette = 1;
  for (size_t tile = 0; tile < 8; ++tile) {
    const bool activations = tile == 4 || tile == 5, weights = tile >= 6;
    config.rows[tile] = static_cast<uint8_t>(weights ? steps : rows);
    config.row_bytes[tile] = static_cast<uint16_t>(4 * (activations ? steps : kAmxChannels));
  }
  return config;
}

AmxConfig amx_config(const OpArgs& args, const I8Layout& layout) {
  const ConvGeometry g = i8_dense_geometry(args, layout);
  const size_t steps = all_steps(g), tiles = i8_dense_tiles(steps, kAmxSteps);
  return amx_tiles(g.pixels() < kAmxRows ? g.pixels() : kAmxRows, divide_up(steps, tiles));
}

double amx_cost(const OpArgs& args) {
  const ConvGeometry g = i8_dense_geometry(args, {kAmxChannels, 0, {}, 0.0f});
  const size_t products = divide_up(g.pixels(), kAmxRows) * i8_dense_tiles(all_steps(g), kAmxSteps);
  return cost(g, products, g.taps() > 1);
}

double amx_strip_cost(const OpArgs& args) {
  const ConvGeometry g = conv_geometry(args);
  const size_t kernel_w = static_cast<size_t>(g.kernel_w),
               kernel_h = static_cast<size_t>(g.kernel_h);
  const size_t row_steps = divide_up(kernel_w * static_cast<size_t>(g.in_c), 4);
  const size_t positions = static_cast<size_t>(g.batch) * static_cast<size_t>(g.out_h) *
                           (static_cast<size_t>(g.out_w) + kernel_w - 1);
  const size_t products =
      divide_up(positions, kAmxRows) * kernel_h * i8_dense_tiles(row_steps, kAmxSteps);
  return cost(g, products, false);
}

}  // namespace pyedge
