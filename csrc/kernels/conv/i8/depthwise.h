// Depthwise INT8 convolution: the driver shared by all instruction sets.
//
// Lanes are channels. The image rows under a row of outputs are interleaved, `group` at a time,
// into columns: for each input x the bytes of `group` rows of a channel lie side by side. One dot
// product then takes `group` taps of a kernel column, and neighbouring outputs share the columns.
// Where `group` rows are more than the kernel has, the row of outputs below shares them too: its
// weights are shifted by one row.
#pragma once

#include "kernels/conv/i8/layout.h"

namespace pyedge {

// One or two rows of outputs of one block of channels.
struct I8DepthwiseRow {
  // [row_groups * group] first pixel of an image row, at the block's first channel; rows outside
  // the image are a pixel of zero points that is not advanced.
  const int8_t* const* rows;
  const size_t* pixel_bytes;  // for each row: in_c or 0
  size_t row_groups;
  size_t taps;                // kernel_w * row_groups: dot products of an output
  const size_t* tap_offsets;  // in int32 of `columns`
  int32_t in_w, out_w, stride_w, dilation_w, kernel_w, pad_left;
  int32_t zero_point;
  size_t out_rows;
  const int8_t* w;  // [out_rows][taps][4][lanes][group]
  I8Channels channels;
  size_t channel_count;
  size_t at;         // in y: the first pixel's first channel
  int32_t* columns;  // scratch of i8_depthwise_scratch_bytes
};

struct I8Depthwise {
  I8Layout layout;
  void (*row)(const I8DepthwiseRow&, const I8Finish&);
};

constexpr int32_t kI8Strip = 32;     // outputs whose columns are built at once
constexpr int32_t kI8StripUnit = 4;  // there is scratch for the columns of a multiple

bool i8_depthwise_accepts(const OpArgs& args);
double i8_depthwise_cost(const OpArgs& args);
size_t i8_depthwise_prepared_bytes(const OpArgs& args, const I8Depthwise& isa);
void i8_depthwise_prepare(const OpArgs& args, const I8Depthwise& isa, void* prepared);
size_t i8_depthwise_scratch_bytes(const OpArgs& args, const I8Depthwise& isa);
size_t i8_depthwise_tasks(const OpArgs& args, const I8Depthwise& isa);
void i8_depthwise_run(const OpArgs& args, const I8Depthwise& isa, const void* prepared,
                      void* scratch, size_t begin, size_t end);

}  // namespace pyedge
