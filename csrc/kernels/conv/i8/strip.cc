#include "kernels/conv/i8/strip.h"

#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

constexpr size_t kMinTasks = 16;           // enough for 16 threads, where there is work for them
constexpr size_t kStripBytes = 128 << 10;  // a part of L2
constexpr size_t kMinPositions = 128;      // of a task: panels of weights are read for as many

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

// Independent of the sizes of the image.
struct Weights {
  ConvGeometry g;
  size_t row_k;  // weights of an output channel in a kernel row
  size_t steps;  // of a kernel row
  size_t panels, panel_bytes;

  Weights(const OpArgs& args, const I8Dense& isa) : g(conv_geometry(args)) {
    row_k = static_cast<size_t>(g.kernel_w) * static_cast<size_t>(g.in_c);
    steps = divide_up(row_k, isa.layout.group);
    const size_t tiles = i8_dense_tiles(steps, isa.tile_steps);
    steps = divide_up(steps, tiles) * tiles;
    const size_t block = i8_block(isa.layout), kernel_h = static_cast<size_t>(g.kernel_h);
    panels = divide_up(static_cast<size_t>(g.out_c), block);
    panel_bytes =
        i8_channels_bytes(isa.layout) + align_up(kernel_h * steps * isa.layout.group * block);
  }
  size_t bytes() const { return kI8HeaderBytes + panels * panel_bytes; }
};

// Tasks are blocks of output rows x panels; neighbouring tasks share the strip.
struct Strips {
  size_t in_c, out_h, pitch, span;  // positions of a row; image rows under an output row, less one
  size_t blocks;                    // of an image

  explicit Strips(const Weights& w)
      : in_c(static_cast<size_t>(w.g.in_c)), out_h(static_cast<size_t>(w.g.out_h)) {
    const ConvGeometry& g = w.g;
    pitch = static_cast<size_t>(g.out_w) + static_cast<size_t>(g.kernel_w) - 1;
    span = static_cast<size_t>(g.kernel_h - 1) * static_cast<size_t>(g.dilation_h);
    const size_t fitting = kStripBytes / (pitch * in_c);
    blocks = divide_up(out_h, fitting > span ? fitting - span : 1);
    const size_t wanted = divide_up(kMinTasks, w.panels * static_cast<size_t>(g.batch));
    const size_t possible = divide_up(out_h * pitch, kMinPositions);
    const size_t parallel = wanted < possible ? wanted : possible;
    if (blocks < parallel) blocks = parallel;
    if (blocks > out_h) blocks = out_h;
  }
  size_t first_row(size_t block) const { return block * out_h / blocks; }
  size_t bytes() const { return (divide_up(out_h, blocks) + span) * pitch * in_c; }
};

// What multiplies the rows of the panel: [4 / kVectors][kernel_h][steps][kVectors][lanes][group].
void pack_panel(const OpArgs& args, const I8Dense& isa, const Weights& w, size_t first,
                size_t count, int8_t* packed) {
  const size_t lanes = isa.layout.lanes, group = isa.layout.group;
  const size_t kernel_h = static_cast<size_t>(w.g.kernel_h);
  const int8_t* weights = args.inputs[kConvWeight].as<int8_t>();
  for (size_t v = 0; v < kI8BlockVectors; v += isa.tile_vectors) {
    for (size_t step = 0; step < kernel_h * w.steps; ++step) {
      const size_t row = step / w.steps, begin = step % w.steps * group;
      for (size_t position = v * lanes; position < (v + isa.tile_vectors) * lanes; ++position) {
        const size_t channel = i8_channel(isa.layout, position);
        const int8_t* source = weights + ((first + channel) * kernel_h + row) * w.row_k;
        for (size_t i = begin; i < begin + group; ++i) {
          *packed++ = channel < count && i < w.row_k ? source[i] : int8_t{0};
        }
      }
    }
  }
}

// The image rows under the output rows [begin, end), `pitch` pixels of each.
void copy_strip(const OpArgs& args, const Strips& s, const ConvGeometry& g, size_t image,
                size_t begin, size_t end, uint8_t* strip) {
  const TensorView& x = args.inputs[kConvX];
  const size_t row_bytes = s.pitch * s.in_c, in_w = static_cast<size_t>(g.in_w);
  const size_t pad = static_cast<size_t>(g.pad_left), left = pad < s.pitch ? pad : s.pitch;
  const size_t inside = in_w < s.pitch - left ? in_w : s.pitch - left;
  const int32_t top = static_cast<int32_t>(begin) - g.pad_top;
  for (size_t row = 0; row < end - begin + s.span; ++row, strip += row_bytes) {
    const int32_t y = top + static_cast<int32_t>(row);
    if (y < 0 || y >= g.in_h) {
      std::memset(strip, x.quant.zero_point, row_bytes);
      continue;
    }
    const size_t in_row = image * static_cast<size_t>(g.in_h) + static_cast<size_t>(y);
    const size_t first = left * s.in_c, last = (left + inside) * s.in_c;
    std::memset(strip, x.quant.zero_point, first);
    std::memcpy(strip + first, x.as<int8_t>() + in_row * in_w * s.in_c, last - first);
    std::memset(strip + last, x.quant.zero_point, row_bytes - last);
  }
}

}  // namespace

bool i8_strip_accepts(const OpArgs& args) {
  if (!i8_accepts(args) || args.op == Op::k_fully_connected) return false;
  const ConvGeometry g = conv_geometry(args);
  return g.groups == 1 && g.taps() > 1 && g.stride_h == 1 && g.stride_w == 1 && g.dilation_w == 1;
}

size_t i8_strip_tile_steps(const OpArgs& args, const I8Dense& isa) {
  const size_t steps = Weights(args, isa).steps;
  return steps / i8_dense_tiles(steps, isa.tile_steps);
}

size_t i8_strip_prepared_bytes(const OpArgs& args, const I8Dense& isa) {
  return Weights(args, isa).bytes();
}

void i8_strip_prepare(const OpArgs& args, const I8Dense& isa, void* prepared) {
  const Weights w(args, isa);
  const size_t k = w.row_k * static_cast<size_t>(w.g.kernel_h), block = i8_block(isa.layout);
  *static_cast<I8Header*>(prepared) = i8_header(args, k);
  uint8_t* panel = static_cast<uint8_t*>(prepared) + kI8HeaderBytes;
  for (size_t i = 0; i < w.panels; ++i, panel += w.panel_bytes) {
    const size_t first = i * block, left = static_cast<size_t>(w.g.out_c) - first;
    const size_t count = left < block ? left : block;
    i8_prepare_channels(args, isa.layout, first, count, k, panel);
    pack_panel(args, isa, w, first, count,
               reinterpret_cast<int8_t*>(panel + i8_channels_bytes(isa.layout)));
  }
}

// The last tile may read as many pixels more, and the last step of a kernel row the slack.
size_t i8_strip_scratch_bytes(const OpArgs& args, const I8Dense& isa) {
  const Strips s(Weights(args, isa));
  return align_up(s.bytes() + isa.tile_pixels * s.in_c + kSlack);
}

size_t i8_strip_tasks(const OpArgs& args, const I8Dense& isa) {
  const Weights w(args, isa);
  return Strips(w).blocks * static_cast<size_t>(w.g.batch) * w.panels;
}

void i8_strip_run(const OpArgs& args, const I8Dense& isa, const void* prepared, void* scratch,
                  size_t begin, size_t end) {
  const Weights w(args, isa);
  const Strips s(w);
  const uint8_t* bytes = static_cast<const uint8_t*>(prepared);
  const I8Finish finish = i8_finish(args, isa.layout, *static_cast<const I8Header*>(prepared));
  const size_t out_w = static_cast<size_t>(w.g.out_w), block_size = i8_block(isa.layout);
  uint8_t* strip = static_cast<uint8_t*>(scratch);
  size_t held = static_cast<size_t>(-1);  // which strip
  I8Panel p{};
  p.rows = strip;
  p.row_bytes = s.in_c;
  p.kernel_rows = static_cast<size_t>(w.g.kernel_h);
  p.kernel_row_bytes = static_cast<size_t>(w.g.dilation_h) * s.pitch * s.in_c;
  p.steps = w.steps;
  p.pitch = s.pitch, p.width = out_w;
  for (size_t task = begin; task < end; ++task) {
    const size_t panel = task % w.panels, block = task / w.panels;
    const size_t image = block / s.blocks, within = block % s.blocks;
    const size_t first = s.first_row(within), last = s.first_row(within + 1);
    if (held != block) {
      copy_strip(args, s, w.g, image, first, last, strip);
      held = block;
    }
    const uint8_t* panel_bytes = bytes + kI8HeaderBytes + panel * w.panel_bytes;
    p.channels = i8_channels(isa.layout, panel_bytes);
    p.w = reinterpret_cast<const int8_t*>(panel_bytes + i8_channels_bytes(isa.layout));
    const size_t left = static_cast<size_t>(w.g.out_c) - panel * block_size;
    p.channel_count = left < block_size ? left : block_size;
    p.pixels = (last - first - 1) * s.pitch + out_w;
    p.at = (image * s.out_h + first) * out_w * finish.y_stride + panel * block_size;
    isa.panel(p, finish);
  }
}

}  // namespace pyedge
