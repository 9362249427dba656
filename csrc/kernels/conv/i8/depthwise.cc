#include "kernels/conv/i8/depthwise.h"

#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

constexpr int32_t kMaxKernel = 32;  // bounds the lists of rows, of all planes, and taps
constexpr size_t kMinGroup = 1, kMaxGroup = 4;
constexpr size_t kMinTasks = 16;     // enough for 16 threads, where there is work for them
constexpr size_t kTaskPixels = 224;  // of the image: their cache lines, and the outputs', fit in L1

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

struct Weights {
  ConvGeometry g;
  size_t block, blocks;
  size_t planes;       // of the image: as many as a group has channels
  size_t kernel_rows;  // of all planes
  size_t row_groups;
  size_t image_rows, out_rows;  // of a set; image rows of all planes
  size_t shifts;                // of the weights: for each of the rows of outputs, or 1
  size_t block_bytes;

  Weights(const OpArgs& args, const I8Depthwise& isa)
      : g(conv_geometry(args)),
        block(i8_block(isa.layout)),
        planes(static_cast<size_t>(g.group_in_c)),
        kernel_rows(static_cast<size_t>(g.kernel_h) * planes) {
    const size_t group = isa.layout.group;
    blocks = divide_up(static_cast<size_t>(g.out_c), block);
    row_groups = divide_up(kernel_rows, group);
    const bool adjacent = g.stride_h == 1 && g.dilation_h == 1;
    shifts = adjacent && row_groups * group >= kernel_rows + planes ? 2 : 1;
    out_rows = adjacent && isa.two_rows && planes == 1 ? 2 : shifts;
    image_rows = row_groups * group + out_rows - shifts;
    block_bytes = i8_channels_bytes(isa.layout) + align_up(shifts * taps() * group * block);
  }
  size_t taps() const { return static_cast<size_t>(g.kernel_w) * row_groups; }
  size_t first_block() const { return kI8HeaderBytes + align_up(block); }
  // Rows of outputs of a task.
  size_t task_rows() const {
    const size_t sets = divide_up(static_cast<size_t>(g.out_h), out_rows);
    const size_t parallel = static_cast<size_t>(g.batch) * blocks * sets / kMinTasks;
    // The image rows of the sets are neighbours in one list.
    const size_t most =
        g.dilation_h == 1 ? kTaskPixels / (row_step() * static_cast<size_t>(g.in_w)) : 1;
    const size_t together = parallel < most ? parallel : most;
    return (together > 1 ? together : 1) * out_rows;
  }
  size_t row_tasks() const { return divide_up(static_cast<size_t>(g.out_h), task_rows()); }
  // In the list of rows, from a set to the next.
  size_t row_step() const { return out_rows * static_cast<size_t>(g.stride_h) * planes; }
  // Of the list, for so many rows of outputs.
  size_t listed_rows(size_t outputs) const {
    return (outputs - 1) / out_rows * row_step() + image_rows;
  }
  size_t copied_row_bytes() const { return static_cast<size_t>(g.in_w) * block; }
  size_t columns_bytes() const {
    const int32_t most = g.out_w < kI8Strip ? g.out_w : kI8Strip;
    const int32_t strip = (most + kI8StripUnit - 1) / kI8StripUnit * kI8StripUnit;
    const int32_t columns = (strip - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w + 1;
    return static_cast<size_t>(columns) * row_groups * block * 4;
  }
};

// What stands at place `channel` of its group in a plane.
size_t rotated(size_t channel, size_t plane, size_t planes) { return (channel + plane) % planes; }

// Copies so many channels of `pixels`, rotated. A group is a Word, its first channel the lowest
// byte.
template <class Word>
void rotate_groups(const int8_t* from, size_t pixel_bytes, size_t pixels, size_t channels,
                   size_t plane, int8_t* to, size_t to_bytes) {
  const unsigned right = static_cast<unsigned>(8 * plane);
  const unsigned left = static_cast<unsigned>(8 * sizeof(Word)) - right;
  for (; pixels > 0; --pixels, from += pixel_bytes, to += to_bytes) {
    const int8_t* __restrict source = from;
    int8_t* __restrict target = to;
    for (size_t i = 0; i < channels / sizeof(Word); ++i) {
      Word group;
      std::memcpy(&group, source + i * sizeof(Word), sizeof(Word));
      group = static_cast<Word>(group >> right | group << left);
      std::memcpy(target + i * sizeof(Word), &group, sizeof(Word));
    }
  }
}

using RotateGroups = decltype(&rotate_groups<uint16_t>);

RotateGroups rotation(size_t planes) {
  return planes == 2   ? rotate_groups<uint16_t>
         : planes == 4 ? rotate_groups<uint32_t>
                       : rotate_groups<uint64_t>;
}

// The weights for the output row `shift` rows below the first.
int8_t* pack_block(const OpArgs& args, const I8Depthwise& isa, const Weights& w, size_t first,
                   size_t count, size_t shift, int8_t* packed) {
  const size_t kernel_w = static_cast<size_t>(w.g.kernel_w), group = isa.layout.group;
  const size_t above = shift * w.planes, weights = w.g.taps() * w.planes;  // of a channel
  for (size_t kx = 0; kx < kernel_w; ++kx) {
    for (size_t row_group = 0; row_group < w.row_groups; ++row_group) {
      for (size_t position = 0; position < w.block; ++position) {
        const size_t channel = i8_channel(isa.layout, position);
        const int8_t* source = args.inputs[kConvWeight].as<int8_t>() + (first + channel) * weights;
        for (size_t row = row_group * group; row < (row_group + 1) * group; ++row) {
          const bool inside = channel < count && row >= above && row - above < w.kernel_rows;
          const size_t ky = (row - above) / w.planes, plane = (row - above) % w.planes;
          const size_t at = (ky * kernel_w + kx) * w.planes + rotated(channel, plane, w.planes);
          *packed++ = inside ? source[at] : int8_t{0};
        }
      }
    }
  }
  return packed;
}

}  // namespace

bool i8_depthwise_accepts(const OpArgs& args, const I8Depthwise& isa) {
  if (!i8_accepts(args) || args.op == Op::k_fully_connected) return false;
  const ConvGeometry g = conv_geometry(args);
  const int32_t planes = g.group_in_c;
  if (g.groups == 1 || g.group_out_c != planes || g.kernel_h * planes > kMaxKernel ||
      g.kernel_w > kMaxKernel) {
    return false;
  }
  if (planes == 1) return true;
  // Beyond, collecting the columns of all planes takes longer than products with the zeros of
  // joined groups: by time on x86, by instructions on ARM, whose blocks join fewer groups.
  const int32_t most = isa.layout.lanes < 8 ? 4 : 8;
  return (planes == 2 || planes == 4 || planes == 8) && planes * g.stride_w <= most;
}

// Against the dense kernel, which leaves most of a block empty or fills it with zeros.
double i8_depthwise_cost(const OpArgs&) { return 0.1; }

size_t i8_depthwise_prepared_bytes(const OpArgs& args, const I8Depthwise& isa) {
  const Weights w(args, isa);
  return w.first_block() + w.blocks * w.block_bytes;
}

void i8_depthwise_prepare(const OpArgs& args, const I8Depthwise& isa, void* prepared) {
  const Weights w(args, isa);
  uint8_t* bytes = static_cast<uint8_t*>(prepared);
  *static_cast<I8Header*>(prepared) = i8_header(args, w.g.taps() * w.planes);
  std::memset(bytes + kI8HeaderBytes, args.inputs[kConvX].quant.zero_point, align_up(w.block));
  const size_t channels = static_cast<size_t>(w.g.out_c);
  for (size_t i = 0; i < w.blocks; ++i) {
    uint8_t* block = bytes + w.first_block() + i * w.block_bytes;
    const size_t first = i * w.block;
    const size_t count = channels - first < w.block ? channels - first : w.block;
    i8_prepare_channels(args, isa.layout, first, count, w.g.taps() * w.planes, block);
    int8_t* packed = reinterpret_cast<int8_t*>(block + i8_channels_bytes(isa.layout));
    for (size_t shift = 0; shift < w.shifts; ++shift) {
      packed = pack_block(args, isa, w, first, count, shift, packed);
    }
  }
}

size_t i8_depthwise_scratch_bytes(const OpArgs& args, const I8Depthwise& isa) {
  const Weights w(args, isa);
  const size_t rows = divide_up(w.listed_rows(w.task_rows()), w.planes);
  return w.columns_bytes() + rows * (w.planes - 1) * w.copied_row_bytes() + kSlack;
}

// A task is one block of channels in sets of rows of outputs.
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
  const size_t in_c = static_cast<size_t>(g.in_c), in_h = static_cast<size_t>(g.in_h);
  const size_t in_row = static_cast<size_t>(g.in_w) * in_c, out_h = static_cast<size_t>(g.out_h);
  const int8_t* rows[kTaskPixels + kMaxKernel + kMaxGroup];
  size_t pixel_bytes[kTaskPixels + kMaxKernel + kMaxGroup];
  size_t tap_offsets[kMaxKernel * kMaxKernel / kMinGroup];
  const size_t column = w.row_groups * w.block;
  for (size_t tap = 0; tap < w.taps(); ++tap) {
    tap_offsets[tap] = tap / w.row_groups * static_cast<size_t>(g.dilation_w) * column +
                       tap % w.row_groups * w.block;
  }
  I8DepthwiseRows r{};
  r.rows = rows;
  r.pixel_bytes = pixel_bytes;
  r.row_groups = w.row_groups;
  r.taps = w.taps();
  r.tap_offsets = tap_offsets;
  r.in_w = g.in_w, r.out_w = g.out_w, r.kernel_w = g.kernel_w;
  r.kernel_h = static_cast<int32_t>(w.kernel_rows);
  r.stride_w = g.stride_w, r.dilation_w = g.dilation_w, r.pad_left = g.pad_left;
  r.zero_point = args.inputs[kConvX].quant.zero_point;
  r.set_rows = w.out_rows, r.row_step = w.row_step();
  r.y_row = static_cast<size_t>(g.out_w) * finish.y_stride;
  r.columns = static_cast<int32_t*>(scratch);
  int8_t* const copies = static_cast<int8_t*>(scratch) + w.columns_bytes();
  const RotateGroups rotate = rotation(w.planes);
  const size_t task_rows = w.task_rows(), row_tasks = w.row_tasks();
  for (size_t task = begin; task < end; ++task) {
    const size_t block = task % w.blocks, row_task = task / w.blocks;
    const size_t first = block * w.block, channels = static_cast<size_t>(g.out_c) - first;
    const size_t image = row_task / row_tasks, out_y = row_task % row_tasks * task_rows;
    r.left = out_h - out_y < task_rows ? out_h - out_y : task_rows;
    r.channel_count = channels < w.block ? channels : w.block;
    const size_t listed = w.listed_rows(r.left);
    const int8_t* x = args.inputs[kConvX].as<int8_t>() + image * in_h * in_row + first;
    int32_t y = static_cast<int32_t>(out_y) * g.stride_h - g.pad_top;
    int8_t* copy = copies;
    for (size_t i = 0; i < listed; ++i) {
      const size_t plane = i % w.planes;
      if (i > 0 && plane == 0) y += g.dilation_h;
      const bool inside = y >= 0 && y < g.in_h;
      rows[i] = inside ? x + static_cast<size_t>(y) * in_row : padding;
      pixel_bytes[i] = inside ? in_c : 0;
      if (!inside || plane == 0) continue;
      rotate(rows[i], in_c, static_cast<size_t>(g.in_w), r.channel_count, plane, copy, w.block);
      rows[i] = copy, pixel_bytes[i] = w.block;
      copy += w.copied_row_bytes();
    }
    const uint8_t* block_bytes = bytes + w.first_block() + block * w.block_bytes;
    r.channels = i8_channels(isa.layout, block_bytes);
    r.w = reinterpret_cast<const int8_t*>(block_bytes + i8_channels_bytes(isa.layout));
    r.at = (image * out_h + out_y) * r.y_row + first;
    isa.rows(r, finish);
  }
}

}  // namespace pyedge
