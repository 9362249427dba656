// INT8 convolution on tiles of up to 16 rows of 64 bytes: what does not depend on how the tiles are
// executed, compiled for the baseline CPU.
#pragma once

#include "kernels/conv/i8/layout.h"
#include "kernels/simd/amx_config.h"

namespace pyedge {

constexpr size_t kAmxRows = 16;   // of a tile: pixels, or the steps of weights
constexpr size_t kAmxSteps = 16;  // of 4 bytes in a row of a tile
constexpr size_t kAmxChannels = 16;

// Tiles 0 to 3 are sums, 4 and 5 activations, 6 and 7 weights.
AmxConfig amx_tiles(size_t rows, size_t steps);
// One configuration serves a layer: the rows are 16 or the pixels there are, and the steps divide
// the sum evenly.
AmxConfig amx_config(const OpArgs& args, const I8Layout& layout);

// Against the dense kernel on vpdpbusd, whose cost is 1.
double amx_cost(const OpArgs& args);
double amx_strip_cost(const OpArgs& args);

}  // namespace pyedge
