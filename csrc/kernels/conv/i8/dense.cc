#include "kernels/conv/i8/dense.h"

#include <algorithm>
#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

constexpr size_t kMinTasks = 16;            // enough for 16 threads, where there is work for them
constexpr size_t kRowsBytes = 128 << 10;    // packed rows of a task: a part of L2
constexpr size_t kMaxPixels = 192;          // of a task
constexpr size_t kSmallWeight = 256 << 10;  // bytes: stays in L2 from one pixel block to the next

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

// Independent of the sizes of the image.
struct Weights {
  ConvGeometry g;      // of joined groups
  size_t together;     // groups that are one
  size_t own_k;        // weights that an output channel has
  bool merged;         // the taps of a kernel row are neighbours in memory
  size_t k;            // weights of an output channel, with zeros for those of other groups
  size_t steps;        // of the dot product
  size_t row_bytes;    // of a packed row
  size_t padding;      // bytes of zero points: the longest run of padding
  size_t panel_count;  // in a group
  size_t survey_at;    // in a panel
  size_t panel_bytes;

  Weights(const OpArgs& args, const I8Dense& isa) : g(i8_dense_geometry(args, isa.layout)) {
    const size_t in_c = static_cast<size_t>(g.group_in_c);
    together = static_cast<size_t>(conv_geometry(args).groups / g.groups);
    own_k = g.taps() * in_c / together;
    merged = g.groups == 1 && g.dilation_w == 1;
    k = g.taps() * in_c;
    steps = divide_up(divide_up(k, isa.layout.group), isa.step_unit) * isa.step_unit;
    const size_t tiles = i8_dense_tiles(steps, isa.tile_steps);
    steps = divide_up(steps, tiles) * tiles;
    row_bytes = steps * isa.layout.group * (isa.layout.packing == I8Packing::centred ? 2 : 1);
    const size_t longest = merged ? in_c * static_cast<size_t>(g.kernel_w) : in_c;
    padding = align_up(longest + kSlack);
    panel_count = divide_up(static_cast<size_t>(g.group_out_c), i8_block(isa.layout));
    survey_at =
        i8_channels_bytes(isa.layout) + align_up(steps * isa.layout.group * i8_block(isa.layout));
    panel_bytes = survey_at + (isa.survey ? align_up(steps * kI8BlockVectors) : 0);
  }
  size_t panels() const { return panel_count * static_cast<size_t>(g.groups); }
  // Weight i of the k of an output channel of the layer.
  int8_t weight(const int8_t* w, size_t channel, size_t i) const {
    const size_t in_c = static_cast<size_t>(g.group_in_c), own_in_c = in_c / together;
    const size_t own_out_c = static_cast<size_t>(g.group_out_c) / together;
    const size_t group = channel / own_out_c % together, at = i % in_c;
    if (at / own_in_c != group) return 0;
    return w[channel * own_k + i / in_c * own_in_c + at % own_in_c];
  }
  size_t first_panel() const { return kI8HeaderBytes + padding; }
  size_t bytes() const { return first_panel() + panels() * panel_bytes; }
};

// Tasks are pixel blocks x panels; neighbouring tasks share the pixel block and its packed rows.
struct Tasks {
  size_t pixels, pixel_blocks, unit;

  Tasks(const Weights& w, const I8Dense& isa) : pixels(w.g.pixels()), unit(isa.task_pixels) {
    const size_t fitting = kRowsBytes / w.row_bytes;
    const size_t most = fitting < isa.tile_pixels ? isa.tile_pixels
                        : fitting < kMaxPixels    ? fitting
                                                  : kMaxPixels;
    // Weights that do not stay in the cache are read once for many pixels.
    const size_t least = isa.tile_pixels * (w.panels() * w.panel_bytes <= kSmallWeight ? 4 : 8);
    pixel_blocks = divide_up(pixels, most);
    const size_t wanted = divide_up(kMinTasks, w.panels()), possible = divide_up(pixels, least);
    const size_t parallel = wanted < possible ? wanted : possible;
    if (pixel_blocks < parallel) pixel_blocks = parallel;
  }
  size_t max_pixels() const { return divide_up(divide_up(pixels, unit), pixel_blocks) * unit; }
  size_t first_pixel(size_t block) const {
    const size_t first = block * divide_up(pixels, unit) / pixel_blocks * unit;
    return first < pixels ? first : pixels;
  }
};

// Packs the rows of a block of pixels.
class Packer {
 public:
  Packer(const OpArgs& args, const I8Dense& isa, const Weights& weights, const int8_t* padding)
      : isa_(isa),
        w_(weights),
        g_(weights.g),
        x_(args.inputs[kConvX].as<int8_t>()),
        zero_point_(args.inputs[kConvX].quant.zero_point),
        padding_(padding),
        row_length_(weights.steps * isa.layout.group),
        // Without padding the rows of neighbouring pixels are neighbours in the image too.
        contiguous_(args.op == Op::k_fully_connected ||
                    (weights.merged && g_.taps() == 1 && g_.stride_h == 1 && g_.stride_w == 1 &&
                     g_.out_h == g_.in_h && g_.out_w == g_.in_w && g_.pad_top == 0 &&
                     g_.pad_left == 0)),
        short_rows_(weights.merged && g_.kernel_w > 1 &&
                    w_.k <= kShortRun * static_cast<size_t>(g_.kernel_h) &&
                    row_length_ + kShortRun <= kStaging) {}

  // The rows of these and the following pixels where they need no packing, else null.
  const uint8_t* rows_in_image(size_t begin) const {
    if (!isa_.reads_image || !contiguous_) return nullptr;
    return reinterpret_cast<const uint8_t*>(x_) + begin * w_.k;
  }

  void pack(size_t begin, size_t end, size_t group, uint8_t* rows) {
    packed_ = rows;
    if (contiguous_ && row_length_ == w_.k) {
      append(x_ + begin * w_.k, (end - begin) * w_.k);
      flush();
      return;
    }
    const size_t out_w = static_cast<size_t>(g_.out_w), out_h = static_cast<size_t>(g_.out_h);
    int32_t x = static_cast<int32_t>(begin % out_w);
    int32_t y = static_cast<int32_t>(begin / out_w % out_h);
    size_t image = begin / out_w / out_h;
    for (size_t pixel = begin; pixel < end;) {
      const size_t count = append_pixels(image, y, x, group, end - pixel);
      pixel += count, x += static_cast<int32_t>(count);
      if (x < g_.out_w) continue;
      x = 0;
      if (++y < g_.out_h) continue;
      y = 0, ++image;
    }
    flush();
  }

 private:
  // Those of an output row from out_x on, at most `most`, and how many it were.
  size_t append_pixels(size_t image, int32_t out_y, int32_t out_x, size_t group, size_t most) {
    const size_t in_c = static_cast<size_t>(g_.in_c);
    const size_t row_bytes = static_cast<size_t>(g_.in_w) * in_c;
    const int8_t* plane = x_ + image * static_cast<size_t>(g_.in_h) * row_bytes +
                          group * static_cast<size_t>(g_.group_in_c);
    const int32_t x = out_x * g_.stride_w - g_.pad_left, top = out_y * g_.stride_h - g_.pad_top;
    const int32_t bottom = top + (g_.kernel_h - 1) * g_.dilation_h;
    if (short_rows_ && x >= 0 && x + g_.kernel_w <= g_.in_w && top >= 0 && bottom < g_.in_h) {
      const size_t inside = static_cast<size_t>((g_.in_w - g_.kernel_w - x) / g_.stride_w) + 1;
      const size_t in_row = static_cast<size_t>(g_.out_w - out_x);
      const size_t fitting = (kStaging - kShortRun) / row_length_;
      const size_t count = std::min(std::min(inside, in_row), std::min(fitting, most));
      append_short_rows(
          plane + static_cast<size_t>(top) * row_bytes + static_cast<size_t>(x) * in_c,
          static_cast<size_t>(g_.dilation_h) * row_bytes, count);
      return count;
    }
    for (int32_t y = top; y <= bottom; y += g_.dilation_h) {
      const bool inside = y >= 0 && y < g_.in_h;
      const int8_t* row = inside ? plane + static_cast<size_t>(y) * row_bytes : nullptr;
      if (w_.merged) {
        append_merged_row(row, x);
      } else {
        append_row(row, x);
      }
    }
    // The weights of the last step's missing activations are zero.
    if (row_length_ > w_.k) append(padding_, row_length_ - w_.k);
    return 1;
  }

  // The kernel rows of neighbouring pixels, all inside the image: as in first layers, of many
  // pixels. What is copied too much of a row is written over by what follows.
  void append_short_rows(const int8_t* pixel, size_t step, size_t count) {
    int8_t* to = stage(count * row_length_);
    const size_t kernel_h = static_cast<size_t>(g_.kernel_h), length = w_.k / kernel_h;
    const size_t pixel_step = static_cast<size_t>(g_.stride_w) * static_cast<size_t>(g_.in_c);
    for (size_t i = 0; i < count; ++i, pixel += pixel_step, to += row_length_) {
      for (size_t ky = 0; ky < kernel_h; ++ky) {
        std::memcpy(to + ky * length, pixel + ky * step, kShortRun);
      }
    }
  }

  // A kernel row: padding on the left, the image, padding on the right.
  void append_merged_row(const int8_t* row, int32_t x) {
    const int32_t kernel_w = g_.kernel_w;
    int32_t left = x < 0 ? -x : 0, right = g_.in_w - x;
    if (right > kernel_w) right = kernel_w;
    const size_t in_c = static_cast<size_t>(g_.in_c);
    if (row == nullptr || left >= right) {
      append(padding_, static_cast<size_t>(kernel_w) * in_c);
      return;
    }
    if (left > 0) append(padding_, static_cast<size_t>(left) * in_c);
    append(row + static_cast<size_t>(x + left) * in_c, static_cast<size_t>(right - left) * in_c);
    if (right < kernel_w) append(padding_, static_cast<size_t>(kernel_w - right) * in_c);
  }

  void append_row(const int8_t* row, int32_t x) {
    const size_t length = static_cast<size_t>(g_.group_in_c);
    for (int32_t kx = 0; kx < g_.kernel_w; ++kx, x += g_.dilation_w) {
      const bool inside = row != nullptr && x >= 0 && x < g_.in_w;
      append(inside ? row + static_cast<size_t>(x) * static_cast<size_t>(g_.in_c) : padding_,
             length);
    }
  }

  void append(const int8_t* data, size_t length) {
    if (length <= kShortRun) {
      std::memcpy(stage(length), data, kShortRun);
    } else {
      append_run(data, length);
    }
  }

  void append_run(const int8_t* data, size_t length) {
    if (count_ > 0 && runs_[count_ - 1].data + runs_[count_ - 1].length == data) {
      runs_[count_ - 1].length += length;
      return;
    }
    if (count_ == kMaxRuns) flush();
    runs_[count_++] = {data, length};
  }

  // Where to copy short runs of `length` bytes together, with space for kShortRun more.
  int8_t* stage(size_t length) {
    if (staged_ + length + kShortRun > kStaging || count_ == kMaxRuns) flush();
    int8_t* to = staging_ + staged_;
    append_run(to, length);
    staged_ += length;
    return to;
  }

  void flush() {
    packed_ = isa_.pack(runs_, count_, zero_point_, packed_);
    count_ = 0;
    staged_ = 0;
  }

  static constexpr size_t kMaxRuns = 64;
  static constexpr size_t kShortRun = 32;  // bytes: up to here runs are copied together first
  static constexpr size_t kStaging = 2048;

  const I8Dense& isa_;
  const Weights& w_;
  const ConvGeometry& g_;
  const int8_t* x_;
  int32_t zero_point_;
  const int8_t* padding_;
  size_t row_length_;
  bool contiguous_, short_rows_;
  uint8_t* packed_ = nullptr;
  size_t count_ = 0, staged_ = 0;
  I8Run runs_[kMaxRuns];
  int8_t staging_[kStaging];
};

void pack_panel(const OpArgs& args, const I8Dense& isa, const Weights& w, size_t first,
                size_t count, int8_t* packed) {
  const size_t lanes = isa.layout.lanes, group = isa.layout.group;
  const int8_t* weights = args.inputs[kConvWeight].as<int8_t>();
  for (size_t v = 0; v < kI8BlockVectors; v += isa.tile_vectors) {
    for (size_t step = 0; step < w.steps; ++step) {
      for (size_t position = v * lanes; position < (v + isa.tile_vectors) * lanes; ++position) {
        const size_t channel = i8_channel(isa.layout, position);
        for (size_t i = step * group; i < (step + 1) * group; ++i) {
          const bool inside = channel < count && i < w.k;
          *packed++ = inside ? w.weight(weights, first + channel, i) : int8_t{0};
        }
      }
    }
  }
}

size_t packed_bytes(const Weights& w, size_t pixels) {
  return align_up(pixels * w.row_bytes + kSlack);
}

}  // namespace

ConvGeometry i8_dense_geometry(const OpArgs& args, const I8Layout& layout) {
  ConvGeometry g = conv_geometry(args);
  int32_t together = std::min(g.groups, static_cast<int32_t>(i8_block(layout)) / g.group_out_c);
  while (together > 1 && g.groups % together != 0) --together;
  if (together > 1) g.groups /= together, g.group_in_c *= together, g.group_out_c *= together;
  return g;
}

size_t i8_dense_prepared_bytes(const OpArgs& args, const I8Dense& isa) {
  return Weights(args, isa).bytes();
}

void i8_dense_prepare(const OpArgs& args, const I8Dense& isa, void* prepared) {
  const Weights w(args, isa);
  uint8_t* bytes = static_cast<uint8_t*>(prepared);
  *static_cast<I8Header*>(prepared) = i8_header(args, w.own_k);
  std::memset(bytes + kI8HeaderBytes, args.inputs[kConvX].quant.zero_point, w.padding);
  uint8_t* panel = bytes + w.first_panel();
  const size_t block = i8_block(isa.layout), group_out_c = static_cast<size_t>(w.g.group_out_c);
  for (size_t i = 0; i < w.panels(); ++i, panel += w.panel_bytes) {
    const size_t within = i % w.panel_count * block;
    const size_t first = i / w.panel_count * group_out_c + within;
    const size_t count = group_out_c - within < block ? group_out_c - within : block;
    i8_prepare_channels(args, isa.layout, first, count, w.own_k, panel);
    int8_t* packed = reinterpret_cast<int8_t*>(panel + i8_channels_bytes(isa.layout));
    pack_panel(args, isa, w, first, count, packed);
    if (isa.survey != nullptr) {
      std::memset(panel + w.survey_at, 0, w.panel_bytes - w.survey_at);
      isa.survey(packed, w.steps, panel + w.survey_at);
    }
  }
}

size_t i8_dense_scratch_bytes(const OpArgs& args, const I8Dense& isa) {
  const Weights w(args, isa);
  const size_t pixels = Tasks(w, isa).max_pixels();
  return packed_bytes(w, pixels) +
         (isa.arrange ? divide_up(pixels, isa.tile_pixels) * isa.tile_pixels * w.row_bytes : 0);
}

size_t i8_dense_tasks(const OpArgs& args, const I8Dense& isa) {
  const Weights w(args, isa);
  return Tasks(w, isa).pixel_blocks * w.panels();
}

void i8_dense_run(const OpArgs& args, const I8Dense& isa, const void* prepared, void* scratch,
                  size_t begin, size_t end) {
  const Weights w(args, isa);
  const Tasks tasks(w, isa);
  const uint8_t* bytes = static_cast<const uint8_t*>(prepared);
  uint8_t* rows = static_cast<uint8_t*>(scratch);
  Packer packer(args, isa, w, reinterpret_cast<const int8_t*>(bytes + kI8HeaderBytes));
  const I8Finish finish = i8_finish(args, isa.layout, *static_cast<const I8Header*>(prepared));
  const size_t block = i8_block(isa.layout), group_out_c = static_cast<size_t>(w.g.group_out_c);
  uint8_t* arranged = rows + packed_bytes(w, tasks.max_pixels());
  size_t packed = static_cast<size_t>(-1);  // which pixel block of which group the rows hold
  I8Panel p{};
  p.steps = w.steps;
  p.kernel_rows = 1;
  for (size_t task = begin; task < end; ++task) {
    const size_t panel = task % w.panels(), pixel_block = task / w.panels();
    const size_t group = panel / w.panel_count, within = panel % w.panel_count * block;
    const size_t first = tasks.first_pixel(pixel_block), last = tasks.first_pixel(pixel_block + 1);
    if (packed != task / w.panel_count) {
      p.pixels = p.pitch = p.width = last - first;
      p.rows = packer.rows_in_image(first);
      p.row_bytes = w.k;
      if (p.rows == nullptr) {
        packer.pack(first, last, group, rows);
        p.rows = rows;
        p.row_bytes = w.row_bytes;
      }
      if (isa.arrange != nullptr) {
        isa.arrange(p, arranged);
        p.rows = arranged;
        p.row_bytes = w.row_bytes;
      }
      packed = task / w.panel_count;
    }
    const uint8_t* panel_bytes = bytes + w.first_panel() + panel * w.panel_bytes;
    p.channels = i8_channels(isa.layout, panel_bytes);
    p.w = reinterpret_cast<const int8_t*>(panel_bytes + i8_channels_bytes(isa.layout));
    p.survey = panel_bytes + w.survey_at;
    p.channel_count = group_out_c - within < block ? group_out_c - within : block;
    p.at = first * finish.y_stride + group * group_out_c + within;
    isa.panel(p, finish);
  }
}

double i8_dense_ns(const OpArgs& args, double product) {
  constexpr double kOutput = 0.1, kPixel = 15.0;  // after the products; packing
  constexpr size_t kBlock = 32;                   // channels that are computed together
  const ConvGeometry g = i8_dense_geometry(args, {kBlock / kI8BlockVectors, 0, {}, 0.0f});
  const size_t out_c = divide_up(static_cast<size_t>(g.group_out_c), kBlock) * kBlock;
  const double products = static_cast<double>(g.taps() * static_cast<size_t>(g.group_in_c));
  return static_cast<double>(g.pixels() * static_cast<size_t>(g.groups)) *
         (static_cast<double>(out_c) * (products * product + kOutput) + kPixel);
}

}  // namespace pyedge
