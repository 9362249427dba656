// Dense 3x3 f32 convolution of stride 1 by Winograd's minimal filtering F(m x m, 3x3), m = 2 or 4
// (Lavin and Gray, arXiv:1509.09308): the driver shared by all instruction sets.
//
// A tile of m x m outputs is A'[sum over channels of (G w G') * (B' x B)]A, products taken element
// by element: n x n multiplications, n = m + 2, where the sum in full takes 9 m x m. For each of
// the n x n positions the sum over channels of many tiles is a matrix product, which the tile
// functions of dense.h compute. Weights are transformed when packed, in double.
//
// The points, which decide the error, are 0, 1, -1 and infinity for m = 2 and 0, 1/sqrt(2),
// -1/sqrt(2), sqrt(2), -sqrt(2) and infinity for m = 4: a fifth of the largest error of 0, 1, -1,
// 2, -2 (on the choice of points: Barabasz et al., arXiv:1803.10986). F(6 x 6, 3x3) would save at
// most a fifth of the products of a face network's layers, most often none, at four times the
// error and nearly twice the weights.
//
// Tolerance: before what follows the sum, with the largest |x| of each channel in the tile,
//   |y - exact| <= 2^-24 (k + 2 sqrt(channels)) sum over channels of (max |x|  sum |w|),
// k = 8 for m = 2 and 24 for m = 4. An output depends on its tile alone, so neither batch nor
// threads change it; the choice among kernels looks at one image only.
//
// Packed weights take 16/9 (m = 2) or 4 times (m = 4) the bytes of the layer's. With few tiles
// they, not the multiplications, take the time, which the cost knows.
#pragma once

#include "kernels/conv/f32/dense.h"

namespace pyedge {

// The transform of a tile of the image, all channels.
struct F32WinogradInput {
  const float* const* pixels;  // [n x n] with `channels` floats each
  size_t channels;
  float* v;  // [n x n][..], filled up to whole vectors
  size_t position_stride;
};

// The transform of a tile of sums to at most m x m outputs, the channels of a panel.
struct F32WinogradOutput {
  const float* sums;  // [n x n][..][2 vectors]
  size_t position_stride;
  const float* bias;      // [2 vectors]
  const float* slope;     // [2 vectors] or null
  const float* residual;  // laid out as y, or null
  float* y;
  size_t y_row, y_pixel;  // floats between rows and pixels of y
  size_t rows, columns;   // that lie inside the output
  size_t channels;
  ConvActivation activation;
  float lo, hi;
};

struct F32Winograd {
  const F32Dense* dense;
  int32_t outputs;  // m
  void (*input)(const F32WinogradInput&);
  void (*output)(const F32WinogradOutput&);
};

bool f32_winograd_accepts(const OpArgs& args);
double f32_winograd_cost(const OpArgs& args, const F32Winograd& isa);
size_t f32_winograd_prepared_bytes(const OpArgs& args, const F32Winograd& isa);
void f32_winograd_prepare(const OpArgs& args, const F32Winograd& isa, void* prepared);
size_t f32_winograd_scratch_bytes(const OpArgs& args, const F32Winograd& isa);
size_t f32_winograd_tasks(const OpArgs& args, const F32Winograd& isa);
void f32_winograd_run(const OpArgs& args, const F32Winograd& isa, const void* prepared,
                      void* scratch, size_t begin, size_t end);

}  // namespace pyedge
