// How the INT8 convolutions order channels for an instruction set, and what follows the
// accumulators of a block of channels.
//
// Lanes are output channels. A block is four vectors of int32 lanes; lane 4 l + e of vector j
// holds channel 16 l + 4 j + e of the block. That is the order in which interleaving bytes within
// 128-bit lanes yields them and in which saturating packs put them back, so that finishing a
// block needs no permutation.
//
// Functions without internal linkage are compiled for the baseline CPU.
#pragma once

#include "kernels/conv/activation.h"
#include "kernels/kernel.h"

namespace pyedge {

constexpr size_t kI8BlockVectors = 4;

// What stands for an activation q where it is multiplied.
enum class I8Packing { centred /* q - zero_point */, plus_128 /* q + 128 */, plain /* q */ };

struct I8Layout {
  size_t lanes;  // int32 in a vector
  size_t group;  // products that one step sums into a lane
  I8Packing packing;
  float exact;  // magnitude below which what is rounded needs no clamp before
};

// What every channel of a block needs, in the order of the lanes: arrays of `block` values each,
// in this order in memory. Lanes past the last channel are zero.
struct I8Channels {
  const int32_t* initial;  // the accumulator's: what packing the activations added, negated
  const float* scale;
  const float* bias;
  const float* slope;
};

// What the whole layer needs after the accumulators.
struct I8Finish {
  void* y;
  const void* residual;  // laid out as y, or null
  bool f32;              // dtype of y and residual; i8 otherwise
  bool has_slope;
  ConvActivation activation;
  bool slope_is_max;  // y < 0 ? y * slope : y is max(y, y * slope)
  bool clamps;        // false where saturation alone gives the bytes
  float lo, hi;
  int32_t zero_point;
  float residual_scale;
  int32_t residual_zero_point;
  size_t y_stride;  // channels of a pixel
};

// Opens the prepared block of a layer.
struct I8Header {
  float bound;     // of any value after the accumulator, whatever the activations; or infinity
  bool max_slope;  // no slope exceeds 1
};
constexpr size_t kI8HeaderBytes = kAlignment;

size_t i8_block(const I8Layout& layout);
// Whether blocks of half as many channels leave fewer lanes empty, of so many channels.
bool i8_prefers_narrow(size_t channels, const I8Layout& wide, const I8Layout& narrow);
// Which channel of the block a position in the arrays of I8Channels belongs to.
size_t i8_channel(const I8Layout& layout, size_t position);
size_t i8_channels_bytes(const I8Layout& layout);
I8Channels i8_channels(const I8Layout& layout, const void* prepared);
// `first` and `count`: channels of the layer that the block holds; `k`: weights of a channel.
void i8_prepare_channels(const OpArgs& args, const I8Layout& layout, size_t first, size_t count,
                         size_t k, void* prepared);
I8Header i8_header(const OpArgs& args, size_t k);
I8Finish i8_finish(const OpArgs& args, const I8Layout& layout, const I8Header& header);

bool i8_accepts(const OpArgs& args);

}  // namespace pyedge
