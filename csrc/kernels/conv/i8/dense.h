// Dense and grouped INT8 convolution without im2col of the image: the driver shared by all
// instruction sets.
//
// For a block of output pixels the driver collects the runs of image bytes that each pixel is
// multiplied with and has the instruction set pack them, once, into rows of bytes that its dot
// product takes. Then it passes over the rows with each panel of output channels, a panel being
// one block of layout.h. Packed rows and a panel stay in L2.
//
// Groups of few output channels would leave most of a block empty. As many as fit count as one,
// which has zeros where a channel meets another group: no more products than before, but fewer rows
// to pack and outputs to finish, and the same sums.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/i8/layout.h"

namespace pyedge {

// Bytes of the image, or of a row of zero points where the tap is padding.
struct I8Run {
  const int8_t* data;
  size_t length;
};

struct I8Panel {
  const uint8_t* rows;  // [pixels][steps] of `group` packed activations, or what arranging made
  size_t row_bytes;     // from a row to the next: of the steps, or of the image
  size_t pixels;
  size_t steps;
  // Only of strip.h, which see: `steps` are those of a kernel row, the rows of the next kernel row
  // lie kernel_row_bytes further, and of each `pitch` rows the first `width` are of pixels.
  size_t kernel_rows, kernel_row_bytes, pitch, width;
  // [4 / kVectors][steps][kVectors][lanes][group], kVectors being the vectors of a tile.
  const int8_t* w;
  const uint8_t* survey;  // what I8Dense::survey wrote about these weights
  I8Channels channels;
  size_t channel_count;
  size_t at;  // in y: the first pixel's first channel
};

struct I8Dense {
  I8Layout layout;
  size_t tile_vectors;
  size_t tile_pixels;
  // Tasks begin at multiples of so many pixels: at most tile_pixels, and then a task has no
  // fewer where the layer has as many.
  size_t task_pixels;
  size_t step_unit;   // the steps of a sum are filled up to a multiple
  size_t tile_steps;  // at most; the steps of a sum are filled up to tiles of equal length
  // Whether rows may be those of the image where its pixels lie one behind the other: then what
  // follows a pixel stands for the activations of the last steps, of which the weights are zero.
  bool reads_image;
  // Packs the runs one behind the other and returns where the next would begin. May write up to
  // 64 bytes past that.
  uint8_t* (*pack)(const I8Run* runs, size_t count, int32_t zero_point, uint8_t* packed);
  // Makes `arranged`, as large as the rows of a multiple of tile_pixels, from the rows. Null where
  // the panel function takes the rows as they are.
  void (*arrange)(const I8Panel& rows, uint8_t* arranged);
  void (*panel)(const I8Panel&, const I8Finish&);
  // Writes what the panel function wants to know of a panel's packed weights: up to a byte for each
  // step of a vector. Null without.
  void (*survey)(const int8_t* w, size_t steps, uint8_t* survey) = nullptr;
};

// Into how many tiles the steps fall.
static constexpr size_t i8_dense_tiles(size_t steps, size_t tile_steps) {
  return (steps + tile_steps - 1) / tile_steps;
}

// Of a layer, with the most groups counted as one that divide their number and fit a block.
ConvGeometry i8_dense_geometry(const OpArgs& args, const I8Layout& layout);

// The wide or the narrow blocks, whichever leave fewer lanes empty.
static inline const I8Dense& i8_dense_fitting(const OpArgs& args, const I8Dense& wide,
                                              const I8Dense& narrow) {
  const ConvGeometry g = i8_dense_geometry(args, wide.layout);
  const size_t channels = static_cast<size_t>(g.group_out_c);
  return i8_prefers_narrow(channels, wide.layout, narrow.layout) ? narrow : wide;
}

size_t i8_dense_prepared_bytes(const OpArgs& args, const I8Dense& isa);
void i8_dense_prepare(const OpArgs& args, const I8Dense& isa, void* prepared);
size_t i8_dense_scratch_bytes(const OpArgs& args, const I8Dense& isa);
size_t i8_dense_tasks(const OpArgs& args, const I8Dense& isa);
void i8_dense_run(const OpArgs& args, const I8Dense& isa, const void* prepared, void* scratch,
                  size_t begin, size_t end);

// Nanoseconds on one core of a Zen 4, to weigh kernels against each other: on an instruction set
// where a product takes `product`. A cost of 1 is that of the fastest vectors, kI8VnniProduct.
double i8_dense_ns(const OpArgs& args, double product);
constexpr double kI8VnniProduct = 1.0 / 215;

}  // namespace pyedge
