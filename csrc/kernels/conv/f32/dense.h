// Dense and grouped f32 convolution without im2col: the driver shared by all instruction sets.
//
// The driver is compiled for the baseline CPU. It finds, for a block of output pixels, where in
// the image the runs of floats lie that each pixel is multiplied with, and calls the tile
// function of an instruction set: up to `max_pixels` pixels x two vectors of output channels.
// Lanes are output channels, so every output is the reference's own chain of fused
// multiply-adds.
#pragma once

#include "kernels/conv/activation.h"
#include "kernels/kernel.h"

namespace pyedge {

// A tile of y[pixel][channel] = clamp(prelu(bias + sum x w + residual)).
struct F32Tile {
  const float* const* runs;  // [run_count][pixels of the tile]
  size_t run_count, run_length;
  size_t x_offset;        // floats from the start of a run to the channels of the group
  const float* w;         // [run_count * run_length][2 vectors]
  const float* bias;      // [2 vectors]
  const float* slope;     // [2 vectors] or null
  const float* residual;  // laid out as y, or null
  float* y;
  size_t y_stride;    // floats between pixels of y
  size_t last_lanes;  // channels in the last vector of the tile
  ConvActivation activation;
  float lo, hi;
};

using F32TileFunction = void (*)(const F32Tile&);

struct F32Dense {
  int32_t lanes;
  int32_t max_pixels;
  const F32TileFunction* tiles[2];  // by vectors - 1, then by pixels - 1
  double cost;                      // of a multiply-add, relative to the other sets
};

bool f32_dense_accepts(const OpArgs& args);
double f32_dense_cost(const OpArgs& args, const F32Dense& isa);
size_t f32_dense_prepared_bytes(const OpArgs& args, const F32Dense& isa);
void f32_dense_prepare(const OpArgs& args, const F32Dense& isa, void* prepared);
size_t f32_dense_scratch_bytes(const OpArgs& args, const F32Dense& isa);
size_t f32_dense_tasks(const OpArgs& args, const F32Dense& isa);
void f32_dense_run(const OpArgs& args, const F32Dense& isa, const void* prepared, void* scratch,
                   size_t begin, size_t end);

}  // namespace pyedge
