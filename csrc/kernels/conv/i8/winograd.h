// INT8 convolution 3x3, stride 1, by Winograd's minimal filtering (Lavin & Gray 2015,
// arXiv:1509.09308): Y = A^T [(G w G^T) * (B^T d B)] A gives a tile of 4x4 outputs from 6x6 inputs
// with 36 products a channel instead of 144. Here it is integer arithmetic and exact: the driver
// shared by all instruction sets.
//
// Along one dimension F(4,3) takes the points 0, 1, -1, 2, -2, infinity. B^T is integer. The
// weights are multiplied by rows of integers,
//   6 (1 0 0), (1 1 1), (1 -1 1), (1 2 4), (1 -2 4), 6 (0 0 1),
// which is 24 G but for the factors -4, -4 and 4 of points 1, -1 and infinity. With
// p = m1 + m2, q = m1 - m2, r = m3 + m4, t = m3 - m4 of the products m, what A^T gives is
//   24 Y0 = m0 - 4 p + r, 12 Y1 = t - 2 q, 6 Y2 = r - p, 6 Y3 = 2 t - q + m5.
// Where a dimension has one or two outputs left, F(2,3) does with the points 0, 1, -1, infinity
// of the same weights; rows of B^T 1 and -1 are multiplied by 3, that of infinity by -1:
//   6 Y0 = m0 + m1 + m2, 6 Y1 = m1 - m2 + m5.
//
// Why it is exact:
//   B^T d B fits in int16: a row of B^T sums to at most 10 in magnitude, |d| <= 255, 100 * 255.
//   G w G^T fits in int16: a row sums to at most 7, |w| <= 128, 49 * 128.
//   Everything after that is taken modulo 2^32, where sums, products and the multiplication by
//   1/9 have no error. Both dimensions together yield 9 * 2^s * acc with s <= 6, so 2^s * acc
//   follows, and acc from an arithmetic shift, as long as |acc| < 2^25. The constant weights of a
//   layer show whether that holds for every image; other layers are left to other kernels.
//
// Packed weights are the int8 ones, 9 bytes for an input and an output channel: transformed, they
// would be 72 and wait for memory. A task transforms what it needs, part by part, into the cache.
#pragma once

#include "kernels/conv/i8/layout.h"

namespace pyedge {

constexpr size_t kWinogradPoints = 6, kWinogradTile = 4, kWinogradTaps = 9;
constexpr size_t kWinogradPart = 64;           // channels whose weights are transformed at a time
constexpr size_t kWinogradSkew = kAlignment;   // bytes: keeps points out of each other's cache sets
constexpr uint32_t kInverseOf9 = 0x38e38e39u;  // modulo 2^32
// The points that F(2,3) has too.
constexpr size_t kWinogradHalf[] = {0, 1, 2, 5};

struct I8WinogradTile {
  size_t at;             // in y: the first pixel's first channel
  size_t rows, columns;  // of outputs
  bool half_rows, half_columns;
};

// Activations of a tile, by row and column, and where their transform goes: [part][point][channel
// of the part], strides in elements.
struct I8WinogradInput {
  const int8_t* pixels[kWinogradPoints][kWinogradPoints];
  bool half_rows, half_columns;
  int32_t zero_point;
  size_t channels;
  int16_t* to;
  size_t part_stride, point_stride;
};

// For one point and part: sums[tile][block] += or = activations[tile][part] * weights, which are
// [block / pass][steps][pass][group] for an order of passes that only the instruction set knows.
struct I8WinogradProduct {
  const int16_t* activations;
  const int16_t* weights;
  size_t steps;
  int32_t* sums;
  size_t tiles;
  bool first;  // part: nothing to add to yet
};

struct I8WinogradOutput {
  const int32_t* sums;  // [point][tile][block]
  size_t point_stride;
  const I8WinogradTile* tiles;
  size_t tile_count;
  size_t row_stride;  // of y
  I8Channels channels;
  size_t first_channel, channel_count;
};

// As in dense.h, nanoseconds: for a product, for the weights of an input channel to a block of
// output channels, for an input and for an output channel of a tile.
struct I8WinogradTimes {
  double product, weights, input, output;
};

struct I8Winograd {
  I8Layout layout;
  size_t input_channels;  // that `input` reads and writes at once
  void (*input)(const I8WinogradInput&);
  // From [steps][taps][block][group] to [point][as in I8WinogradProduct], points being
  // winograd_weight_stride elements apart.
  void (*weights)(const int8_t* packed, size_t steps, int16_t* to);
  void (*multiply)(const I8WinogradProduct&);
  void (*output)(const I8WinogradOutput&, const I8Finish&);
  I8WinogradTimes times;
};

static constexpr size_t winograd_weight_stride(size_t block) {
  return kWinogradPart * block + kWinogradSkew / sizeof(int16_t);
}

bool i8_winograd_accepts(const OpArgs& args);
// Whether no accumulator can leave the range that the transform back is exact in.
bool i8_winograd_suits(const OpArgs& args);
// Relative to the direct convolution on AVX512-VNNI.
double i8_winograd_cost(const OpArgs& args, const I8Winograd& isa);
size_t i8_winograd_prepared_bytes(const OpArgs& args, const I8Winograd& isa);
void i8_winograd_prepare(const OpArgs& args, const I8Winograd& isa, void* prepared);
size_t i8_winograd_scratch_bytes(const OpArgs& args, const I8Winograd& isa);
size_t i8_winograd_tasks(const OpArgs& args, const I8Winograd& isa);
void i8_winograd_run(const OpArgs& args, const I8Winograd& isa, const void* prepared, void* scratch,
                     size_t begin, size_t end);

}  // namespace pyedge
