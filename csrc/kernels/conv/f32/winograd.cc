#include "kernels/conv/f32/winograd.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

constexpr size_t kMinTasks = 16;       // enough for 16 threads, where there is work for them
constexpr size_t kMaxChannels = 2048;  // bounds the scratch block: 4.4 MiB
constexpr size_t kMaxTile = 6;
constexpr size_t kMaxGroups = 4;            // of tiles that are multiplied together, in a block
constexpr size_t kTransformed = 640 << 10;  // bytes of a block of tiles, to stay in L2
constexpr size_t kFloats = kAlignment / sizeof(float);

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
size_t larger(size_t a, size_t b) { return a > b ? a : b; }

// Independent of the sizes of the image.
struct Weights {
  ConvGeometry g;
  size_t in_c, out_c;
  size_t positions;  // n x n
  size_t block;      // output channels of a panel: two vectors
  size_t panels;
  size_t zeros;  // floats that padding and the sums' start point at
  size_t panel;  // floats: bias, slope, weights

  Weights(const OpArgs& args, const F32Winograd& isa) : g(conv_geometry(args)) {
    in_c = static_cast<size_t>(g.in_c), out_c = static_cast<size_t>(g.out_c);
    const size_t n = static_cast<size_t>(isa.outputs) + 2;
    positions = n * n;
    block = static_cast<size_t>(isa.dense->lanes) * 2;
    panels = divide_up(out_c, block);
    zeros = larger(divide_up(in_c, kFloats) * kFloats, block);
    panel = (2 + positions * in_c) * block;
  }
  size_t panel_offset(size_t index) const { return zeros + index * panel; }
  size_t bytes() const { return (zeros + panels * panel) * sizeof(float); }
};

// How the output is cut into tasks: blocks of tiles x panels x parts of the block. Weights are read
// once for all the parts that one thread takes.
struct Tasks {
  size_t rows, columns;  // tiles of an image
  size_t tiles, tile_blocks, panels, parts;

  Tasks(const Weights& w, const F32Winograd& isa) : panels(w.panels) {
    const size_t m = static_cast<size_t>(isa.outputs);
    const size_t group = static_cast<size_t>(isa.dense->max_pixels);
    rows = divide_up(static_cast<size_t>(w.g.out_h), m);
    columns = divide_up(static_cast<size_t>(w.g.out_w), m);
    tiles = static_cast<size_t>(w.g.batch) * rows * columns;
    const size_t tile_bytes = w.positions * row_stride(w) * sizeof(float);
    const size_t block = smaller(larger(kTransformed / tile_bytes, group), kMaxGroups * group);
    tile_blocks = divide_up(tiles, block);
    parts = smaller(divide_up(kMinTasks, tile_blocks * panels), divide_up(max_block() * 2, group));
  }
  // Floats between tiles of a position: not a multiple of what would crowd a set of the cache.
  static size_t row_stride(const Weights& w) { return (divide_up(w.in_c, kFloats) + 1) * kFloats; }
  size_t count() const { return tile_blocks * panels * parts; }
  size_t max_block() const { return divide_up(tiles, tile_blocks); }
  size_t first_tile(size_t block) const { return block * tiles / tile_blocks; }
};

// Neighbouring tasks of one block and one panel: some of the tiles of the block.
struct Piece {
  size_t block, panel;
  size_t tasks;
  size_t first, end;  // tiles, from the first of the block

  Piece(const Tasks& tasks_, size_t begin, size_t last) {
    const size_t panels = begin / tasks_.parts, part = begin % tasks_.parts;
    block = panels / tasks_.panels, panel = panels % tasks_.panels;
    tasks = smaller(last - begin, tasks_.parts - part);
    const size_t tiles = tasks_.first_tile(block + 1) - tasks_.first_tile(block);
    first = part * tiles / tasks_.parts, end = (part + tasks) * tiles / tasks_.parts;
  }
};

// The block that a thread works in.
struct Scratch {
  const float** runs;  // a row of v for each tile
  float* v;            // [positions][tiles][row_stride]
  float* sums;         // [positions][tiles][block]
  size_t v_position, sums_position;

  Scratch(const Weights& w, const Tasks& tasks, void* scratch) {
    const size_t tiles = tasks.max_block();
    v_position = tiles * Tasks::row_stride(w), sums_position = tiles * w.block;
    char* const bytes = static_cast<char*>(scratch);
    runs = reinterpret_cast<const float**>(bytes);
    v = reinterpret_cast<float*>(bytes + align_up(tiles * sizeof(float*)));
    sums = v + w.positions * v_position;
    if (!scratch) return;
    for (size_t i = 0; i < tiles; ++i) runs[i] = v + i * Tasks::row_stride(w);
  }
  static size_t bytes(const Weights& w, const Tasks& tasks) {
    const size_t tiles = tasks.max_block();
    return align_up(tiles * sizeof(float*)) +
           w.positions * tiles * (Tasks::row_stride(w) + w.block) * sizeof(float);
  }
};

// Where a tile of outputs lies.
struct Tile {
  size_t image, y, x;

  Tile(const Tasks& tasks, size_t m, size_t index)
      : image(index / (tasks.rows * tasks.columns)),
        y(index / tasks.columns % tasks.rows * m),
        x(index % tasks.columns * m) {}
};

void transform_tile(const OpArgs& args, const F32Winograd& isa, const Weights& w, const Tile& tile,
                    const float* zeros, float* v, size_t v_position) {
  const int32_t n = isa.outputs + 2;
  const ConvGeometry& g = w.g;
  const float* image = args.inputs[kConvX].as<float>() + tile.image * static_cast<size_t>(g.in_h) *
                                                             static_cast<size_t>(g.in_w) * w.in_c;
  const float* pixels[kMaxTile * kMaxTile];
  const float** pixel = pixels;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t y = static_cast<int32_t>(tile.y) - g.pad_top + i;
    const bool inside = y >= 0 && y < g.in_h;
    for (int32_t j = 0; j < n; ++j) {
      const int32_t x = static_cast<int32_t>(tile.x) - g.pad_left + j;
      *pixel++ = inside && x >= 0 && x < g.in_w
                     ? image + (static_cast<size_t>(y) * static_cast<size_t>(g.in_w) +
                                static_cast<size_t>(x)) *
                                   w.in_c
                     : zeros;
    }
  }
  isa.input({pixels, w.in_c, v, v_position});
}

// The sums over channels at every position, the output channels of a panel.
void multiply(const F32Winograd& isa, const Weights& w, const float* zeros, const float* panel,
              const Piece& piece, const Scratch& scratch) {
  const size_t tiles = piece.end - piece.first;
  const size_t groups = divide_up(tiles, static_cast<size_t>(isa.dense->max_pixels));
  const size_t lanes = static_cast<size_t>(isa.dense->lanes);
  F32Tile tile{};
  tile.run_count = 1, tile.run_length = w.in_c;
  tile.bias = zeros;
  tile.y_stride = w.block, tile.last_lanes = lanes;
  tile.lo = -std::numeric_limits<float>::infinity();
  tile.hi = std::numeric_limits<float>::infinity();
  for (size_t position = 0; position < w.positions; ++position) {
    tile.x_offset = position * scratch.v_position;
    tile.w = panel + (2 + position * w.in_c) * w.block;
    for (size_t group = 0; group < groups; ++group) {
      const size_t first = piece.first + group * tiles / groups;
      const size_t end = piece.first + (group + 1) * tiles / groups;
      tile.runs = scratch.runs + first;
      tile.y = scratch.sums + position * scratch.sums_position + first * w.block;
      isa.dense->tiles[1][end - first - 1](tile);
    }
  }
}

void store_tiles(const OpArgs& args, const F32Winograd& isa, const Weights& w, const Tasks& tasks,
                 const Piece& piece, const float* panel, const Scratch& scratch) {
  const ConvOutput out = conv_output(args);
  const size_t m = static_cast<size_t>(isa.outputs), channel = piece.panel * w.block;
  const size_t out_h = static_cast<size_t>(w.g.out_h), out_w = static_cast<size_t>(w.g.out_w);
  F32WinogradOutput output{};
  output.position_stride = scratch.sums_position;
  output.bias = panel;
  output.slope = out.has_slope ? panel + w.block : nullptr;
  output.y_row = out_w * w.out_c, output.y_pixel = w.out_c;
  output.channels = smaller(w.out_c - channel, w.block);
  output.activation = out.activation;
  output.lo = out.lo, output.hi = out.hi;
  for (size_t i = piece.first; i < piece.end; ++i) {
    const Tile tile(tasks, m, tasks.first_tile(piece.block) + i);
    const size_t at = ((tile.image * out_h + tile.y) * out_w + tile.x) * w.out_c + channel;
    output.sums = scratch.sums + i * w.block;
    output.residual = out.residual ? static_cast<const float*>(out.residual) + at : nullptr;
    output.y = args.outputs[0].mutable_as<float>() + at;
    output.rows = smaller(out_h - tile.y, m), output.columns = smaller(out_w - tile.x, m);
    isa.output(output);
  }
}

// G of F(m, 3): a row for each point.
const double (*weight_transform(int32_t outputs))[3] {
  constexpr double kSqrt2 = 1.4142135623730951;
  static constexpr double k2[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
  static constexpr double k4[6][3] = {{1, 0, 0},
                                      {-2.0 / 3, -kSqrt2 / 3, -1.0 / 3},
                                      {-2.0 / 3, kSqrt2 / 3, -1.0 / 3},
                                      {1.0 / 6, kSqrt2 / 6, 1.0 / 3},
                                      {1.0 / 6, -kSqrt2 / 6, 1.0 / 3},
                                      {0, 0, 1}};
  return outputs == 2 ? k2 : k4;
}

// G w G' to result[position * stride].
void transform_weight(const double (*transform)[3], size_t n, const double (&w)[3][3],
                      float* result, size_t stride) {
  for (size_t i = 0; i < n; ++i) {
    double row[3];
    for (size_t x = 0; x < 3; ++x) {
      row[x] = transform[i][0] * w[0][x] + transform[i][1] * w[1][x] + transform[i][2] * w[2][x];
    }
    for (size_t j = 0; j < n; ++j) {
      const double sum =
          row[0] * transform[j][0] + row[1] * transform[j][1] + row[2] * transform[j][2];
      result[(i * n + j) * stride] = flush_denormal(static_cast<float>(sum));
    }
  }
}

}  // namespace

bool f32_winograd_accepts(const OpArgs& args) {
  if (args.op != Op::k_conv || !conv_is_f32(args)) return false;
  const ConvGeometry g = conv_geometry(args);
  return g.groups == 1 && g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 &&
         g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1 &&
         static_cast<size_t>(g.in_c) <= kMaxChannels;
}

// Against the multiply-adds of the sum in full, for one image: a batch must not change the choice,
// because the choice changes the result. What a float costs to transform and to stream from memory
// is measured in multiply-adds (Zen 4).
double f32_winograd_cost(const OpArgs& args, const F32Winograd& isa) {
  constexpr double kTransform = 16.0, kStream = 10.0;
  const Weights w(args, isa);
  const Tasks tasks(w, isa);
  const double in_c = static_cast<double>(w.in_c), out_c = static_cast<double>(w.out_c);
  const double tiles = static_cast<double>(tasks.rows * tasks.columns);
  const double weights = in_c * static_cast<double>(w.panels * w.block);
  const double products = weights * (tiles > kStream ? tiles : kStream);
  const double transforms = kTransform * tiles * (in_c + out_c);
  const double pixels = static_cast<double>(w.g.out_h) * static_cast<double>(w.g.out_w);
  return isa.dense->cost * static_cast<double>(w.positions) * (products + transforms) /
         (9.0 * in_c * out_c * pixels);
}

size_t f32_winograd_prepared_bytes(const OpArgs& args, const F32Winograd& isa) {
  return Weights(args, isa).bytes();
}

void f32_winograd_prepare(const OpArgs& args, const F32Winograd& isa, void* prepared) {
  const Weights w(args, isa);
  std::memset(prepared, 0, w.bytes());
  const ConvWeights weights(args);
  const double(*transform)[3] = weight_transform(isa.outputs);
  const size_t n = static_cast<size_t>(isa.outputs) + 2;
  constexpr size_t kMaxBlock = 32;
  float transformed[kMaxTile * kMaxTile][kMaxBlock] = {};
  for (size_t index = 0; index < w.panels; ++index) {
    const size_t first = index * w.block, channels = smaller(w.out_c - first, w.block);
    float* panel = static_cast<float*>(prepared) + w.panel_offset(index);
    for (size_t lane = 0; lane < channels; ++lane) {
      const ConvChannel channel = conv_channel(args, static_cast<int32_t>(first + lane));
      panel[lane] = channel.bias;
      panel[w.block + lane] = channel.slope;
    }
    for (size_t c = 0; c < w.in_c; ++c) {
      for (size_t lane = 0; lane < channels; ++lane) {
        double taps[3][3];
        for (size_t tap = 0; tap < 9; ++tap) {
          taps[tap / 3][tap % 3] =
              static_cast<double>(weights[((first + lane) * 9 + tap) * w.in_c + c]);
        }
        transform_weight(transform, n, taps, &transformed[0][lane], kMaxBlock);
      }
      for (size_t position = 0; position < w.positions; ++position) {
        std::memcpy(panel + (2 + position * w.in_c + c) * w.block, transformed[position],
                    channels * sizeof(float));
      }
    }
  }
}

size_t f32_winograd_scratch_bytes(const OpArgs& args, const F32Winograd& isa) {
  const Weights w(args, isa);
  return Scratch::bytes(w, Tasks(w, isa));
}

size_t f32_winograd_tasks(const OpArgs& args, const F32Winograd& isa) {
  const Weights w(args, isa);
  return Tasks(w, isa).count();
}

void f32_winograd_run(const OpArgs& args, const F32Winograd& isa, const void* prepared,
                      void* scratch_block, size_t begin, size_t end) {
  const Weights w(args, isa);
  const Tasks tasks(w, isa);
  const Scratch scratch(w, tasks, scratch_block);
  const float* zeros = static_cast<const float*>(prepared);
  const size_t m = static_cast<size_t>(isa.outputs);
  // The tiles that scratch.v holds.
  size_t block = 0, transformed_first = 0, transformed_end = 0;
  while (begin < end) {
    const Piece piece(tasks, begin, end);
    begin += piece.tasks;
    if (piece.block != block || piece.first < transformed_first || piece.end > transformed_end) {
      block = piece.block, transformed_first = piece.first, transformed_end = piece.end;
      for (size_t i = piece.first; i < piece.end; ++i) {
        transform_tile(args, isa, w, Tile(tasks, m, tasks.first_tile(block) + i), zeros,
                       scratch.v + i * Tasks::row_stride(w), scratch.v_position);
      }
    }
    const float* panel = zeros + w.panel_offset(piece.panel);
    multiply(isa, w, zeros, panel, piece, scratch);
    store_tiles(args, isa, w, tasks, piece, panel, scratch);
  }
}

}  // namespace pyedge
