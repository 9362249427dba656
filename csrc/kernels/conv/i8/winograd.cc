#include "kernels/conv/i8/winograd.h"

#include <cstring>

#include "kernels/conv/conv.h"
#include "kernels/conv/i8/dense.h"

namespace pyedge {
namespace {

constexpr size_t kMinTasks = 16;           // enough for 16 threads, where there is work for them
constexpr size_t kInputBytes = 640 << 10;  // transformed activations of a task: a part of L2
constexpr size_t kMaxTiles = 48;           // of a task
constexpr size_t kMinTiles = 24;           // that transforming the weights pays for
constexpr size_t kPoints = kWinogradPoints * kWinogradPoints;
constexpr int64_t kAccumulatorLimit = 1 << 25;
constexpr double kIdleChannels = 16;  // as many input channels cost as much as storing the sums

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
size_t larger(size_t a, size_t b) { return a < b ? b : a; }

// Independent of the sizes of the image.
struct Weights {
  ConvGeometry g;
  size_t k;      // weights of an output channel
  size_t steps;  // of `group` input channels
  size_t step_bytes;
  size_t padding;  // bytes: a pixel of zero points
  size_t panels, panel_bytes;

  Weights(const OpArgs& args, const I8Winograd& isa) : g(conv_geometry(args)) {
    const size_t in_c = static_cast<size_t>(g.in_c);
    k = kWinogradTaps * in_c;
    steps = divide_up(in_c, isa.layout.group);
    step_bytes = kWinogradTaps * i8_block(isa.layout) * isa.layout.group;
    padding = align_up(in_c + kSlack);
    panels = divide_up(static_cast<size_t>(g.out_c), i8_block(isa.layout));
    panel_bytes = i8_channels_bytes(isa.layout) + align_up(steps * step_bytes);
  }
  size_t first_panel() const { return kI8HeaderBytes + padding; }
  size_t bytes() const { return first_panel() + panels * panel_bytes; }
};

// Tasks are blocks of tiles x panels; neighbouring tasks share the tiles and their transform.
struct Tasks {
  size_t tile_rows, tile_columns, tiles, blocks;

  explicit Tasks(const Weights& w)
      : tile_rows(divide_up(static_cast<size_t>(w.g.out_h), kWinogradTile)),
        tile_columns(divide_up(static_cast<size_t>(w.g.out_w), kWinogradTile)),
        tiles(static_cast<size_t>(w.g.batch) * tile_rows * tile_columns) {
    const size_t in_c = static_cast<size_t>(w.g.in_c);
    const size_t fitting = kInputBytes / (kPoints * in_c * sizeof(int16_t));
    blocks = divide_up(tiles, larger(kMinTiles, smaller(fitting, kMaxTiles)));
    const size_t wanted = divide_up(kMinTasks, w.panels), possible = tiles / kMinTiles;
    blocks = larger(blocks, smaller(wanted, possible));
  }
  size_t max_tiles() const { return divide_up(tiles, blocks); }
  size_t first_tile(size_t block) const { return block * tiles / blocks; }
};

// What lies in the scratch block, strides in elements.
struct Scratch {
  size_t parts, part_steps;
  size_t input_stride, sums_stride, weight_stride;  // from point to point

  Scratch(const Weights& w, const Tasks& tasks, const I8Winograd& isa) {
    const size_t block = i8_block(isa.layout), tiles = tasks.max_tiles();
    part_steps = kWinogradPart / isa.layout.group;
    parts = divide_up(w.steps, part_steps);
    input_stride = tiles * kWinogradPart + kWinogradSkew / sizeof(int16_t);
    sums_stride = (align_up(tiles * block * sizeof(int32_t)) + kWinogradSkew) / sizeof(int32_t);
    weight_stride = winograd_weight_stride(block);
  }
  size_t part_stride() const { return kPoints * input_stride; }
  size_t input_bytes() const { return parts * part_stride() * sizeof(int16_t); }
  size_t sums_bytes() const { return kPoints * sums_stride * sizeof(int32_t); }
  size_t bytes() const {
    return input_bytes() + sums_bytes() + kPoints * weight_stride * sizeof(int16_t);
  }
};

// The tiles of a block in the order (half the rows), full, (half the columns), (half of both): the
// ones that take part in a point are neighbours.
class TileBlock {
 public:
  TileBlock(const Weights& w, const Tasks& tasks, size_t begin, size_t end) {
    count_ = 0;
    for (size_t order = 0; order < 4; ++order) {
      first_[order] = count_;
      for (size_t i = begin; i < end; ++i) add(w.g, tasks, i, order);
    }
  }
  size_t count() const { return count_; }
  const I8WinogradTile* tiles() const { return tiles_; }

  // Of the tiles that take part in a point.
  size_t begin(size_t row) const { return in_half(row) ? 0 : first_[1]; }
  size_t end(size_t row, size_t column) const {
    if (in_half(column)) return in_half(row) ? count_ : first_[3];
    return first_[2];
  }

  void pixels(const OpArgs& args, const ConvGeometry& g, size_t tile, const int8_t* padding,
              I8WinogradInput* input) const {
    const size_t in_c = static_cast<size_t>(g.in_c), in_w = static_cast<size_t>(g.in_w);
    const Origin& origin = origins_[tile];
    const int8_t* image =
        args.inputs[kConvX].as<int8_t>() + origin.image * static_cast<size_t>(g.in_h) * in_w * in_c;
    for (int32_t row = 0; row < static_cast<int32_t>(kWinogradPoints); ++row) {
      const int32_t y = origin.y - g.pad_top + row;
      for (int32_t column = 0; column < static_cast<int32_t>(kWinogradPoints); ++column) {
        const int32_t x = origin.x - g.pad_left + column;
        const bool inside = y >= 0 && y < g.in_h && x >= 0 && x < g.in_w;
        const size_t pixel = static_cast<size_t>(y) * in_w + static_cast<size_t>(x);
        input->pixels[row][column] = inside ? image + pixel * in_c : padding;
      }
    }
    input->half_rows = tiles_[tile].half_rows;
    input->half_columns = tiles_[tile].half_columns;
  }

 private:
  struct Origin {
    size_t image;
    int32_t y, x;
  };

  static bool in_half(size_t point) {
    for (const size_t half : kWinogradHalf) {
      if (point == half) return true;
    }
    return false;
  }

  void add(const ConvGeometry& g, const Tasks& tasks, size_t index, size_t order) {
    const size_t x = index % tasks.tile_columns * kWinogradTile;
    const size_t row = index / tasks.tile_columns;
    const size_t y = row % tasks.tile_rows * kWinogradTile, image = row / tasks.tile_rows;
    const size_t out_h = static_cast<size_t>(g.out_h), out_w = static_cast<size_t>(g.out_w);
    I8WinogradTile tile;
    tile.at = ((image * out_h + y) * out_w + x) * static_cast<size_t>(g.out_c);
    tile.rows = smaller(kWinogradTile, out_h - y);
    tile.columns = smaller(kWinogradTile, out_w - x);
    tile.half_rows = tile.rows <= 2, tile.half_columns = tile.columns <= 2;
    const size_t its_order =
        tile.half_rows ? (tile.half_columns ? 3 : 0) : (tile.half_columns ? 2 : 1);
    if (its_order != order) return;
    origins_[count_] = {image, static_cast<int32_t>(y), static_cast<int32_t>(x)};
    tiles_[count_++] = tile;
  }

  size_t count_, first_[4];
  I8WinogradTile tiles_[kMaxTiles];
  Origin origins_[kMaxTiles];
};

// [steps][taps][block][group]; channels there are none of have zero weights.
void pack_panel(const OpArgs& args, const I8Winograd& isa, const Weights& w, size_t first,
                size_t count, int8_t* packed) {
  const size_t block = i8_block(isa.layout), group = isa.layout.group;
  const size_t in_c = static_cast<size_t>(w.g.in_c);
  for (size_t step = 0; step < w.steps; ++step) {
    for (size_t tap = 0; tap < kWinogradTaps; ++tap) {
      for (size_t position = 0; position < block; ++position) {
        const size_t channel = i8_channel(isa.layout, position);
        const int8_t* source =
            args.inputs[kConvWeight].as<int8_t>() + (first + channel) * w.k + tap * in_c;
        for (size_t i = step * group; i < (step + 1) * group; ++i) {
          *packed++ = channel < count && i < in_c ? source[i] : int8_t{0};
        }
      }
    }
  }
}

// Whether no image makes an accumulator of the channel as large as the limit. What lies in the
// padding counts as zero, which is a value that q - zero_point takes.
bool within_limit(const int8_t* w, size_t k, int32_t zero_point) {
  int32_t sum = 0, magnitude = 0;
  for (size_t i = 0; i < k; ++i) {
    sum += w[i];
    magnitude += w[i] < 0 ? -w[i] : w[i];
  }
  const int64_t positive = (int64_t{magnitude} + sum) / 2, negative = magnitude - positive;
  const int64_t above = 127 - zero_point, below = 128 + zero_point;
  return positive * above + negative * below < kAccumulatorLimit &&
         positive * below + negative * above < kAccumulatorLimit;
}

// Points of all tiles along a dimension.
double points_along(int32_t outputs) {
  const size_t n = static_cast<size_t>(outputs), rest = n % kWinogradTile;
  const size_t of_rest = rest == 0 ? 0 : rest <= 2 ? 4 : kWinogradPoints;
  return static_cast<double>(n / kWinogradTile * kWinogradPoints + of_rest);
}

// The tasks of one call of run: what they share and the scratch block.
class Runner {
 public:
  Runner(const OpArgs& args, const I8Winograd& isa, const void* prepared, void* scratch)
      : args_(args),
        isa_(isa),
        w_(args, isa),
        tasks_(w_),
        layout_(w_, tasks_, isa),
        prepared_(static_cast<const uint8_t*>(prepared)),
        input_(static_cast<int16_t*>(scratch)),
        sums_(reinterpret_cast<int32_t*>(static_cast<uint8_t*>(scratch) + layout_.input_bytes())),
        weights_(reinterpret_cast<int16_t*>(static_cast<uint8_t*>(scratch) + layout_.input_bytes() +
                                            layout_.sums_bytes())),
        finish_(i8_finish(args, isa.layout, *static_cast<const I8Header*>(prepared))) {}

  void run(size_t begin, size_t end) {
    for (size_t task = begin; task < end;) {
      const size_t block = task / w_.panels, first = task % w_.panels;
      const size_t last = smaller(w_.panels, first + end - task);
      const TileBlock tiles(w_, tasks_, tasks_.first_tile(block), tasks_.first_tile(block + 1));
      transform_input(tiles);
      for (size_t panel = first; panel < last; ++panel) run_panel(tiles, panel);
      task += last - first;
    }
  }

 private:
  void transform_input(const TileBlock& tiles) {
    I8WinogradInput input;
    input.zero_point = args_.inputs[kConvX].quant.zero_point;
    input.channels = static_cast<size_t>(w_.g.in_c);
    input.part_stride = layout_.part_stride();
    input.point_stride = layout_.input_stride;
    const int8_t* padding = reinterpret_cast<const int8_t*>(prepared_ + kI8HeaderBytes);
    for (size_t tile = 0; tile < tiles.count(); ++tile) {
      tiles.pixels(args_, w_.g, tile, padding, &input);
      input.to = input_ + tile * kWinogradPart;
      isa_.input(input);
    }
  }

  void run_panel(const TileBlock& tiles, size_t panel) {
    const size_t block = i8_block(isa_.layout);
    const uint8_t* bytes = prepared_ + w_.first_panel() + panel * w_.panel_bytes;
    const int8_t* packed = reinterpret_cast<const int8_t*>(bytes + i8_channels_bytes(isa_.layout));
    const int8_t* end = reinterpret_cast<const int8_t*>(prepared_ + w_.bytes());
    for (size_t part = 0; part < layout_.parts; ++part) {
      const size_t step = part * layout_.part_steps;
      const size_t steps = smaller(layout_.part_steps, w_.steps - step);
      isa_.weights(packed + step * w_.step_bytes, steps, weights_);
      const int8_t* next = packed + (step + steps) * w_.step_bytes;
      multiply(tiles, part, steps, next,
               smaller(steps * w_.step_bytes, static_cast<size_t>(end - next)));
    }
    I8WinogradOutput output;
    output.sums = sums_;
    output.point_stride = layout_.sums_stride;
    output.tiles = tiles.tiles();
    output.tile_count = tiles.count();
    output.row_stride = static_cast<size_t>(w_.g.out_w) * finish_.y_stride;
    output.channels = i8_channels(isa_.layout, bytes);
    output.first_channel = panel * block;
    output.channel_count = smaller(block, finish_.y_stride - output.first_channel);
    isa_.output(output, finish_);
  }

  // Meanwhile fetches the packed weights that come next, as the memory has nothing else to do.
  void multiply(const TileBlock& tiles, size_t part, size_t steps, const int8_t* next,
                size_t next_bytes) {
    I8WinogradProduct product;
    product.steps = steps;
    product.first = part == 0;
    for (size_t point = 0; point < kPoints; ++point) {
      const size_t row = point / kWinogradPoints, column = point % kWinogradPoints;
      const size_t begin = tiles.begin(row), end = tiles.end(row, column);
      for (const int8_t* line = next + point * next_bytes / kPoints;
           line < next + (point + 1) * next_bytes / kPoints; line += kAlignment) {
        __builtin_prefetch(line, 0, 2);
      }
      if (begin == end) continue;
      product.activations = input_ + part * layout_.part_stride() + point * layout_.input_stride +
                            begin * kWinogradPart;
      product.weights = weights_ + point * layout_.weight_stride;
      product.sums = sums_ + point * layout_.sums_stride + begin * i8_block(isa_.layout);
      product.tiles = end - begin;
      isa_.multiply(product);
    }
  }

  const OpArgs& args_;
  const I8Winograd& isa_;
  const Weights w_;
  const Tasks tasks_;
  const Scratch layout_;
  const uint8_t* prepared_;
  int16_t* input_;
  int32_t* sums_;
  int16_t* weights_;
  const I8Finish finish_;
};

}  // namespace

bool i8_winograd_accepts(const OpArgs& args) {
  if (args.op != Op::k_conv || !i8_accepts(args)) return false;
  const ConvGeometry g = conv_geometry(args);
  return g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 && g.stride_w == 1 &&
         g.dilation_h == 1 && g.dilation_w == 1 && g.groups == 1;
}

bool i8_winograd_suits(const OpArgs& args) {
  const ConvGeometry g = conv_geometry(args);
  const size_t k = kWinogradTaps * static_cast<size_t>(g.in_c);
  const int8_t* w = args.inputs[kConvWeight].as<int8_t>();
  for (int32_t channel = 0; channel < g.out_c; ++channel, w += k) {
    if (!within_limit(w, k, args.inputs[kConvX].quant.zero_point)) return false;
  }
  return true;
}

double i8_winograd_cost(const OpArgs& args, const I8Winograd& isa) {
  const Weights w(args, isa);
  const Tasks tasks(w);
  const I8WinogradTimes& t = isa.times;
  const double in_c = static_cast<double>(w.g.in_c), tiles = static_cast<double>(tasks.tiles);
  const double out_c = static_cast<double>(w.panels * i8_block(isa.layout));
  const double points =
      static_cast<double>(w.g.batch) * points_along(w.g.out_h) * points_along(w.g.out_w);
  const double ns = points * (in_c + kIdleChannels) * out_c * t.product +
                    static_cast<double>(tasks.blocks * w.panels) * in_c * t.weights +
                    tiles * in_c * t.input + tiles * out_c * t.output;
  return ns / i8_dense_ns(args, kI8VnniProduct);
}

size_t i8_winograd_prepared_bytes(const OpArgs& args, const I8Winograd& isa) {
  return Weights(args, isa).bytes();
}

void i8_winograd_prepare(const OpArgs& args, const I8Winograd& isa, void* prepared) {
  const Weights w(args, isa);
  uint8_t* bytes = static_cast<uint8_t*>(prepared);
  *static_cast<I8Header*>(prepared) = i8_header(args, w.k);
  std::memset(bytes + kI8HeaderBytes, args.inputs[kConvX].quant.zero_point, w.padding);
  uint8_t* panel = bytes + w.first_panel();
  const size_t block = i8_block(isa.layout), out_c = static_cast<size_t>(w.g.out_c);
  for (size_t first = 0; first < out_c; first += block, panel += w.panel_bytes) {
    const size_t count = smaller(block, out_c - first);
    i8_prepare_channels(args, isa.layout, first, count, w.k, panel);
    pack_panel(args, isa, w, first, count,
               reinterpret_cast<int8_t*>(panel + i8_channels_bytes(isa.layout)));
  }
}

size_t i8_winograd_scratch_bytes(const OpArgs& args, const I8Winograd& isa) {
  const Weights w(args, isa);
  return Scratch(w, Tasks(w), isa).bytes();
}

size_t i8_winograd_tasks(const OpArgs& args, const I8Winograd& isa) {
  const Weights w(args, isa);
  return Tasks(w).blocks * w.panels;
}

void i8_winograd_run(const OpArgs& args, const I8Winograd& isa, const void* prepared, void* scratch,
                     size_t begin, size_t end) {
  Runner(args, isa, prepared, scratch).run(begin, end);
}

}  // namespace pyedge
