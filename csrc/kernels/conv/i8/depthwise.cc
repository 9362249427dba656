#include "kernels/conv/i8/depthwise.h"

#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

constexpr int32_t kMaxKernel = 32;  // bounds the lists of rows and taps
constexpr size_t kMinGroup = 1, kMaxGroup = 4;

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

struct Weights {
  ConvGeometry g;
  size_t block, blocks;
  size_t row_groups;
  size_t out_rows;  // that a task makes from the same columns
  size_t block_bytes;

  Weights(const OpArgs& args, const I8Depthwise& isa)
      : g(conv_geometry(args)), block(i8_block(isa.layout)) {
    const size_t kernel_h = static_cast<size_t>(g.kernel_h), group = isa.layout.group;
    blocks = divide_up(static_cast<size_t>(g.out_c), block);
    row_groups = divide_up(kernel_h, group);
    out_rows = g.stride_h == 1 && g.dilation_h == 1 && row_groups * group > kernel_h ? 2 : 1;
    block_bytes = i8_channels_bytes(isa.layout) + align_up(out_rows * taps() * group * block);
  }
  size_t taps() const { return static_cast<size_t>(g.kernel_w) * row_groups; }
  size_t first_block() const { return kI8HeaderBytes + align_up(block); }
  size_t row_tasks() const { return divide_up(static_cast<size_t>(g.out_h), out_rows); }
};

// The weights for the output row `shift` rows below the first.
int8_t* pack_block(const OpArgs& args, const I8Depthwise& isa, const Weights& w, size_t first,
                   size_t count, size_t shift, int8_t* packed) {
  const size_t kernel_w = static_cast<size_t>(w.g.kernel_w);
  const size_t kernel_h = static_cast<size_t>(w.g.kernel_h), group = isa.layout.group;
  for (size_t kx = 0; kx < kernel_w; ++kx) {
    for (size_t row_group = 0; row_group < w.row_groups; ++row_group) {
      for (size_t position = 0; position < w.block; ++position) {
        const size_t channel = i8_channel(isa.layout, position);
        const int8_t* source =
            args.inputs[kConvWeight].as<int8_t>() + (first + channel) * w.g.taps();
        for (size_t row = row_group * group; row < (row_group + 1) * group; ++row) {
          const bool inside = channel < count && row >= shift && row - shift < kernel_h;
          *packed++ = inside ? source[(row - shift) * kernel_w + kx] : int8_t{0};
        }
      }
    }
  }
  return packed;
}

}  // namespace

bool i8_depthwise_accepts(const OpArgs& args) {
  if (!i8_accepts(args) || args.op == Op::k_fully_connected) return false;
  const ConvGeometry g = conv_geometry(args);
  return g.depthwise() && g.group_out_c == 1 && g.kernel_h <= kMaxKernel &&
         g.kernel_w <= kMaxKernel;
}

// The dense kernel would multiply one channel at a time.
double i8_depthwise_cost(const OpArgs&) { return 0.1; }

size_t i8_depthwise_prepared_bytes(const OpArgs& args, const I8Depthwise& isa) {
  const Weights w(args, isa);
  return w.first_block() + w.blocks * w.block_bytes;
}

void i8_depthwise_prepare(const OpArgs& args, const I8Depthwise& isa, void* prepared) {
  const Weights w(args, isa);
  uint8_t* bytes = static_cast<uint8_t*>(prepared);
  *static_cast<I8Header*>(prepared) = i8_header(args, w.g.taps());
  std::memset(bytes + kI8HeaderBytes, args.inputs[kConvX].quant.zero_point, align_up(w.block));
  const size_t channels = static_cast<size_t>(w.g.out_c);
  for (size_t i = 0; i < w.blocks; ++i) {
    uint8_t* block = bytes + w.first_block() + i * w.block_bytes;
    const size_t first = i * w.block;
    const size_t count = channels - first < w.block ? channels - first : w.block;
    i8_prepare_channels(args, isa.layout, first, count, w.g.taps(), block);
    int8_t* packed = reinterpret_cast<int8_t*>(block + i8_channels_bytes(isa.layout));
    for (size_t shift = 0; shift < w.out_rows; ++shift) {
      packed = pack_block(args, isa, w, first, count, shift, packed);
    }
  }
}

size_t i8_depthwise_scratch_bytes(const OpArgs& args, const I8Depthwise& isa) {
  const Weights w(args, isa);
  const int32_t most = w.g.out_w < kI8Strip ? w.g.out_w : kI8Strip;
  const int32_t strip = (most + kI8StripUnit - 1) / kI8StripUnit * kI8StripUnit;
  const int32_t columns = (strip - 1) * w.g.stride_w + (w.g.kernel_w - 1) * w.g.dilation_w + 1;
  return static_cast<size_t>(columns) * w.row_groups * w.block * 4;
}

// A task is one block of channels in the output rows that share columns.
size_t i8_depthwise_tasks(const OpArgs& args, const I8Depthwise& isa) {
  const Weights w(args, isa);
  return static_cast<size_t>(w.g.batch) * w.row_tasks() * w.blocks;
}

void i8_depthwise_run(const OpArgs& args, const I8Depthwise& isa, const void* prepared,
                      void* scratch, size_t begin, size_t end) {
  const Weights w(args, isa);
  const ConvGeometry& g = w.g;
  const uint8_t* bytes = static_cast<const uint8_t*>(prepared);
  const int8_t* padding = reinterpret_cast<const int8_t*>(bytes + kI8HeaderBytes);
  const I8Finish finish = i8_finish(args, isa.layout, *static_cast<const I8Header*>(prepared));
  const size_t in_c = static_cast<size_t>(g.in_c), out_h = static_cast<size_t>(g.out_h);
  const int8_t* rows[kMaxKernel + kMaxGroup];
  size_t pixel_bytes[kMaxKernel + kMaxGroup];
  size_t tap_offsets[kMaxKernel * kMaxKernel / kMinGroup];
  const size_t column = w.row_groups * w.block;
  for (size_t tap = 0; tap < w.taps(); ++tap) {
    tap_offsets[tap] = tap / w.row_groups * static_cast<size_t>(g.dilation_w) * column +
                       tap % w.row_groups * w.block;
  }
  I8DepthwiseRow row{};
  row.rows = rows;
  row.pixel_bytes = pixel_bytes;
  row.row_groups = w.row_groups;
  row.taps = w.taps();
  row.tap_offsets = tap_offsets;
  row.in_w = g.in_w, row.out_w = g.out_w, row.kernel_w = g.kernel_w;
  row.stride_w = g.stride_w, row.dilation_w = g.dilation_w, row.pad_left = g.pad_left;
  row.zero_point = args.inputs[kConvX].quant.zero_point;
  row.columns = static_cast<int32_t*>(scratch);
  for (size_t task = begin; task < end; ++task) {
    const size_t block = task % w.blocks, row_task = task / w.blocks;
    const size_t first = block * w.block, channels = static_cast<size_t>(g.out_c) - first;
    const size_t image = row_task / w.row_tasks();
    const size_t out_y = row_task % w.row_tasks() * w.out_rows;
    const int32_t top = static_cast<int32_t>(out_y) * g.stride_h - g.pad_top;
    for (size_t r = 0; r < w.row_groups * isa.layout.group; ++r) {
      const int32_t y = top + static_cast<int32_t>(r) * g.dilation_h;
      const bool inside = y >= 0 && y < g.in_h;
      const size_t in_row = image * static_cast<size_t>(g.in_h) + static_cast<size_t>(y);
      rows[r] = inside ? args.inputs[kConvX].as<int8_t>() +
                             in_row * static_cast<size_t>(g.in_w) * in_c + first
                       : padding;
      pixel_bytes[r] = inside ? in_c : 0;
    }
    const uint8_t* block_bytes = bytes + w.first_block() + block * w.block_bytes;
    row.channels = i8_channels(isa.layout, block_bytes);
    row.w = reinterpret_cast<const int8_t*>(block_bytes + i8_channels_bytes(isa.layout));
    row.channel_count = channels < w.block ? channels : w.block;
    row.out_rows = out_h - out_y < w.out_rows ? out_h - out_y : w.out_rows;
    row.at = (image * out_h + out_y) * static_cast<size_t>(g.out_w) * finish.y_stride + first;
    isa.row(row, finish);
  }
}

}  // namespace pyedge
