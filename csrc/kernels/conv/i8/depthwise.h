// Depthwise INT8 convolution: the driver shared by all instruction sets.
//
// Lanes are channels. The image rows under a row of outputs are interleaved, `group` at a time,
// into columns: for each input x the bytes of `group` rows of a channel lie side by side. One dot
// product then takes `group` taps of a kernel column, and neighbouring outputs share the columns.
// Where `group` rows are more than the kernel has, the row of outputs below shares them too: its
// weights are shifted by one row. Without groups it takes the same weights, and one image row more.
//
// Groups of 2, 4 or 8 channels run as depthwise as well, over several planes: the image, and copies
// of it in which the channels of each group are rotated. So every channel meets all those of its
// group at its own place. Each image row is followed by its copies in the list of rows, as if the
// kernel had as many times more rows.
#pragma once

#include "kernels/conv/i8/layout.h"

namespace pyedge {

// Rows of outputs of one block of channels, in sets of one row or two that share image rows.
struct I8DepthwiseRows {
  // [row_groups * group, or one more, and row_step for each further set] first pixel of an image
  // row or a copy of it, at the block's first channel; rows outside the image are a pixel of zero
  // points that is not advanced.
  const int8_t* const* rows;
  const size_t* pixel_bytes;  // for each row: from a pixel to the next, or 0
  size_t row_groups;
  size_t taps;                // kernel_w * row_groups: dot products of an output
  const size_t* tap_offsets;  // in int32 of `columns`
  int32_t in_w, out_w, stride_w, dilation_w;
  int32_t kernel_h;  // rows of all planes
  int32_t kernel_w, pad_left;
  int32_t zero_point;
  size_t left;      // rows of outputs, with those of the following sets
  size_t set_rows;  // of outputs
  size_t row_step;  // from the image rows of a set to those of the next
  const int8_t* w;  // [set_rows, or 1][taps][4][lanes][group]
  I8Channels channels;
  size_t channel_count;
  size_t at;         // in y: the first pixel's first channel
  size_t y_row;      // in y, from a row to the next
  int32_t* columns;  // scratch of i8_depthwise_scratch_bytes
};

static inline size_t i8_out_rows(const I8DepthwiseRows& set) {
  return set.left < set.set_rows ? set.left : set.set_rows;
}
// Goes on to the next set; false where there is none.
static inline bool i8_next_set(I8DepthwiseRows* set) {
  if (set->left <= set->set_rows) return false;
  set->left -= set->set_rows;
  set->rows += set->row_step, set->pixel_bytes += set->row_step;
  set->at += set->set_rows * set->y_row;
  return true;
}

struct I8Depthwise {
  I8Layout layout;
  void (*rows)(const I8DepthwiseRows&, const I8Finish&);
  // Whether a set may have two rows even where that takes more image rows than the groups have.
  bool two_rows = false;
};

constexpr int32_t kI8Strip = 32;     // outputs whose columns are built at once
constexpr int32_t kI8StripUnit = 4;  // there is scratch for the columns of a multiple

bool i8_depthwise_accepts(const OpArgs& args, const I8Depthwise& isa);
double i8_depthwise_cost(const OpArgs& args);
size_t i8_depthwise_prepared_bytes(const OpArgs& args, const I8Depthwise& isa);
void i8_depthwise_prepare(const OpArgs& args, const I8Depthwise& isa, void* prepared);
size_t i8_depthwise_scratch_bytes(const OpArgs& args, const I8Depthwise& isa);
size_t i8_depthwise_tasks(const OpArgs& args, const I8Depthwise& isa);
void i8_depthwise_run(const OpArgs& args, const I8Depthwise& isa, const void* prepared,
                      void* scratch, size_t begin, size_t end);

}  // namespace pyedge
