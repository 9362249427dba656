#include "kernels/conv/f32/dense.h"

#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

constexpr size_t kMinTasks = 16;       // enough for 16 threads, where there is work for them
constexpr size_t kMaxTaps = 1024;      // bounds the scratch block: 3.5 MiB
constexpr size_t kMergedChannels = 4;  // up to here a whole kernel row is one run
// Pixels of a block. Weights that do not stay in L2 are read once for many pixels.
constexpr size_t kBlock = 112, kLargeBlock = 448;
constexpr size_t kSmallWeight = 256 << 10;  // bytes

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
size_t align(size_t bytes) { return divide_up(bytes, kAlignment) * kAlignment; }

bool padded(const OpArgs& args) {
  return args.op == Op::k_conv && (args.ints[4] | args.ints[5] | args.ints[6] | args.ints[7]) != 0;
}

// The output channels of a panel.
struct Channels {
  size_t group, first, count;
};

// Independent of the sizes of the image.
struct Weights {
  ConvGeometry g;
  bool merged;                   // a kernel row of an interior pixel is one run
  size_t run_count, run_length;  // of a pixel
  size_t block;                  // output channels of a panel: two vectors
  size_t blocks;                 // panels in a group
  size_t zeros;                  // floats of the run that padding points at
  size_t panel;                  // floats: bias, slope, weights

  Weights(const OpArgs& args, const F32Dense& isa) : g(conv_geometry(args)) {
    const size_t in_c = static_cast<size_t>(g.in_c);
    const size_t kernel_w = static_cast<size_t>(g.kernel_w);
    merged = g.groups == 1 && g.dilation_w == 1 && g.kernel_w > 1 && in_c <= kMergedChannels;
    run_count = merged ? static_cast<size_t>(g.kernel_h) : g.taps();
    run_length = static_cast<size_t>(g.group_in_c) * (merged ? kernel_w : 1);
    block = static_cast<size_t>(isa.lanes) * 2;
    blocks = divide_up(static_cast<size_t>(g.group_out_c), block);
    zeros = padded(args) ? align((merged ? run_length : in_c) * sizeof(float)) / sizeof(float) : 0;
    panel = (2 + run_count * run_length) * block;
  }
  size_t panels() const { return blocks * static_cast<size_t>(g.groups); }
  size_t panel_offset(size_t index) const { return zeros + index * panel; }
  Channels channels(size_t index) const {
    const size_t group_out_c = static_cast<size_t>(g.group_out_c);
    const size_t group = index / blocks, in_group = index % blocks * block;
    return {group, group * group_out_c + in_group, smaller(group_out_c - in_group, block)};
  }
  size_t bytes() const { return (zeros + panels() * panel) * sizeof(float); }
};

// How the output is cut into tasks: pixel blocks x panels.
struct Tasks {
  size_t pixels, pixel_blocks, panels;
  bool panels_first;  // neighbouring tasks share the pixel block, otherwise the panel

  Tasks(const Weights& w, const F32Dense& isa) : pixels(w.g.pixels()), panels(w.panels()) {
    const size_t weight_bytes = panels * w.panel * sizeof(float);
    pixel_blocks = divide_up(pixels, weight_bytes <= kSmallWeight ? kBlock : kLargeBlock);
    if (pixel_blocks * panels < kMinTasks) {
      const size_t tiles = divide_up(pixels, static_cast<size_t>(isa.max_pixels));
      pixel_blocks = smaller(divide_up(kMinTasks, panels), tiles);
    }
    const size_t image_bytes = static_cast<size_t>(w.g.batch) * static_cast<size_t>(w.g.in_h) *
                               static_cast<size_t>(w.g.in_w) * static_cast<size_t>(w.g.in_c) *
                               sizeof(float);
    panels_first = weight_bytes <= kSmallWeight || image_bytes >= weight_bytes;
  }
  size_t count() const { return pixel_blocks * panels; }
  size_t max_block() const { return divide_up(pixels, pixel_blocks); }
  size_t panel(size_t task) const { return panels_first ? task % panels : task / pixel_blocks; }
  size_t pixel_block(size_t task) const {
    return panels_first ? task / panels : task % pixel_blocks;
  }
  size_t first_pixel(size_t block) const { return block * pixels / pixel_blocks; }
};

// Neighbouring output pixels, cut into tiles of nearly equal size.
struct PixelBlock {
  size_t first, pixels, tiles;

  PixelBlock(const Tasks& tasks, size_t index, const F32Dense& isa)
      : first(tasks.first_pixel(index)),
        pixels(tasks.first_pixel(index + 1) - first),
        tiles(divide_up(pixels, static_cast<size_t>(isa.max_pixels))) {}
  // The first pixel of a tile, from that of the block.
  size_t tile(size_t index) const { return index * pixels / tiles; }
};

// The runs of a block of pixels: for each tile of the block [run_count][pixels of the tile].
class Runs {
 public:
  Runs(const Weights& weights, const float* x, const float* zeros, const float** runs,
       float* patches)
      : w_(weights), g_(weights.g), x_(x), zeros_(zeros), runs_(runs), patches_(patches) {}

  void find(const PixelBlock& block) {
    patch_ = patches_;
    int32_t out_x = static_cast<int32_t>(block.first % static_cast<size_t>(g_.out_w));
    const size_t row = block.first / static_cast<size_t>(g_.out_w);
    int32_t out_y = static_cast<int32_t>(row % static_cast<size_t>(g_.out_h));
    size_t image = row / static_cast<size_t>(g_.out_h);
    const float** tile_runs = runs_;
    for (size_t tile = 0; tile < block.tiles; ++tile) {
      const size_t pixels = block.tile(tile + 1) - block.tile(tile);
      for (size_t i = 0; i < pixels; ++i) {
        find_pixel(image, out_y, out_x, pixels, tile_runs + i);
        if (++out_x == g_.out_w) {
          out_x = 0;
          if (++out_y == g_.out_h) out_y = 0, ++image;
        }
      }
      tile_runs += pixels * w_.run_count;
    }
  }

 private:
  void find_pixel(size_t image, int32_t out_y, int32_t out_x, size_t stride, const float** runs) {
    const size_t in_c = static_cast<size_t>(g_.in_c), in_w = static_cast<size_t>(g_.in_w);
    const int32_t first_x = out_x * g_.stride_w - g_.pad_left;
    const float* pixels = x_ + image * static_cast<size_t>(g_.in_h) * in_w * in_c;
    int32_t y = out_y * g_.stride_h - g_.pad_top;
    for (int32_t ky = 0; ky < g_.kernel_h; ++ky, y += g_.dilation_h) {
      const bool inside = y >= 0 && y < g_.in_h;
      const float* row = inside ? pixels + static_cast<size_t>(y) * in_w * in_c : nullptr;
      if (w_.merged) {
        *runs = row ? merged_run(row, first_x) : zeros_;
        runs += stride;
        continue;
      }
      int32_t x = first_x;
      for (int32_t kx = 0; kx < g_.kernel_w; ++kx, x += g_.dilation_w, runs += stride) {
        *runs = row && x >= 0 && x < g_.in_w ? row + static_cast<size_t>(x) * in_c : zeros_;
      }
    }
  }

  // Where the kernel hangs over the border the row is copied, with zeros around it.
  const float* merged_run(const float* row, int32_t first_x) {
    const int32_t in_c = g_.in_c;
    if (first_x >= 0 && first_x + g_.kernel_w <= g_.in_w) return row + first_x * in_c;
    float* patch = patch_;
    patch_ += w_.run_length;
    for (int32_t kx = 0; kx < g_.kernel_w; ++kx) {
      const int32_t x = first_x + kx;
      const bool inside = x >= 0 && x < g_.in_w;
      for (int32_t c = 0; c < in_c; ++c) {
        patch[kx * in_c + c] = inside ? row[x * in_c + c] : 0.0f;
      }
    }
    return patch;
  }

  const Weights& w_;
  const ConvGeometry& g_;
  const float* x_;
  const float* zeros_;
  const float** runs_;
  float* patches_;
  float* patch_ = nullptr;
};

// Offsets in the scratch block, in bytes.
struct Scratch {
  size_t patches, bytes;

  Scratch(const Weights& w, const Tasks& tasks) {
    patches = align(tasks.max_block() * w.run_count * sizeof(const float*));
    const size_t copied = w.merged ? tasks.max_block() * w.run_count * w.run_length : 0;
    bytes = patches + copied * sizeof(float);
  }
};

// All pixels of a block, the output channels of a panel.
void run_panel(const OpArgs& args, const F32Dense& isa, const Weights& w, size_t panel_index,
               const PixelBlock& block, const float* prepared, const float* const* runs) {
  const ConvOutput out = conv_output(args);
  const size_t lanes = static_cast<size_t>(isa.lanes);
  const Channels channels = w.channels(panel_index);
  const size_t vectors = divide_up(channels.count, lanes);
  const float* panel = prepared + w.panel_offset(panel_index);
  F32Tile tile{};
  tile.run_count = w.run_count, tile.run_length = w.run_length;
  tile.x_offset = channels.group * static_cast<size_t>(w.g.group_in_c);
  tile.bias = panel;
  tile.slope = out.has_slope ? panel + w.block : nullptr;
  tile.w = panel + 2 * w.block;
  tile.y_stride = static_cast<size_t>(w.g.out_c);
  tile.last_lanes = channels.count - (vectors - 1) * lanes;
  tile.activation = out.activation;
  tile.lo = out.lo, tile.hi = out.hi;
  for (size_t t = 0; t < block.tiles; ++t) {
    const size_t first = block.tile(t), pixels = block.tile(t + 1) - first;
    const size_t at = (block.first + first) * tile.y_stride + channels.first;
    tile.runs = runs + first * w.run_count;
    tile.residual = out.residual ? static_cast<const float*>(out.residual) + at : nullptr;
    tile.y = args.outputs[0].mutable_as<float>() + at;
    isa.tiles[vectors - 1][pixels - 1](tile);
  }
}

}  // namespace

bool f32_dense_accepts(const OpArgs& args) {
  return conv_is_f32(args) && conv_geometry(args).taps() <= kMaxTaps;
}

// A vector that is partly filled takes as long as a full one.
double f32_dense_cost(const OpArgs& args, const F32Dense& isa) {
  const size_t channels = static_cast<size_t>(conv_geometry(args).group_out_c);
  const size_t lanes = static_cast<size_t>(isa.lanes);
  return isa.cost * static_cast<double>(divide_up(channels, lanes) * lanes) /
         static_cast<double>(channels);
}

size_t f32_dense_prepared_bytes(const OpArgs& args, const F32Dense& isa) {
  return Weights(args, isa).bytes();
}

void f32_dense_prepare(const OpArgs& args, const F32Dense& isa, void* prepared) {
  const Weights weights(args, isa);
  const ConvWeights w(args);
  std::memset(prepared, 0, weights.bytes());
  const size_t run = weights.run_count * weights.run_length, block = weights.block;
  for (size_t index = 0; index < weights.panels(); ++index) {
    const Channels channels = weights.channels(index);
    float* panel = static_cast<float*>(prepared) + weights.panel_offset(index);
    for (size_t lane = 0; lane < channels.count; ++lane) {
      const ConvChannel channel = conv_channel(args, static_cast<int32_t>(channels.first + lane));
      panel[lane] = channel.bias + 0.0f;  // -0 becomes +0
      panel[block + lane] = channel.slope;
    }
    for (size_t k = 0; k < run; ++k) {
      float* row = panel + (2 + k) * block;
      for (size_t lane = 0; lane < channels.count; ++lane) {
        row[lane] = w[(channels.first + lane) * run + k];
      }
    }
  }
}

size_t f32_dense_scratch_bytes(const OpArgs& args, const F32Dense& isa) {
  const Weights weights(args, isa);
  return Scratch(weights, Tasks(weights, isa)).bytes;
}

size_t f32_dense_tasks(const OpArgs& args, const F32Dense& isa) {
  return Tasks(Weights(args, isa), isa).count();
}

void f32_dense_run(const OpArgs& args, const F32Dense& isa, const void* prepared, void* scratch,
                   size_t begin, size_t end) {
  const Weights weights(args, isa);
  const Tasks tasks(weights, isa);
  const Scratch at(weights, tasks);
  char* const bytes = static_cast<char*>(scratch);
  const float** runs = reinterpret_cast<const float**>(bytes);
  Runs finder(weights, args.inputs[kConvX].as<float>(), static_cast<const float*>(prepared), runs,
              reinterpret_cast<float*>(bytes + at.patches));
  size_t found = tasks.pixel_blocks;  // the pixel block that `runs` is for
  for (size_t task = begin; task < end; ++task) {
    const size_t pixel_block = tasks.pixel_block(task);
    const PixelBlock block(tasks, pixel_block, isa);
    if (found != pixel_block) finder.find(block);
    found = pixel_block;
    run_panel(args, isa, weights, tasks.panel(task), block, static_cast<const float*>(prepared),
              runs);
  }
}

}  // namespace pyedge
