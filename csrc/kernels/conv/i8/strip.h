// Dense INT8 convolution of stride 1 without packing the activations of every pixel: the driver.
//
// The image rows under a block of output rows are copied once, with their padding, one behind the
// other. The activations of a kernel row are then neighbours in memory, those of the next pixel
// begin one pixel later, and those of the next kernel row at a fixed distance. So they do over
// the end of an output row, where kernel_w - 1 positions are of no pixel.
#pragma once

#include "kernels/conv/i8/dense.h"

namespace pyedge {

bool i8_strip_accepts(const OpArgs& args);
// Of a kernel row, in a tile.
size_t i8_strip_tile_steps(const OpArgs& args, const I8Dense& isa);
size_t i8_strip_prepared_bytes(const OpArgs& args, const I8Dense& isa);
void i8_strip_prepare(const OpArgs& args, const I8Dense& isa, void* prepared);
size_t i8_strip_scratch_bytes(const OpArgs& args, const I8Dense& isa);
size_t i8_strip_tasks(const OpArgs& args, const I8Dense& isa);
void i8_strip_run(const OpArgs& args, const I8Dense& isa, const void* prepared, void* scratch,
                  size_t begin, size_t end);

}  // namespace pyedge
