// Random INT8 layers of awkward shapes and extreme values: every kernel gives the bytes of the
// reference, with one thread and with three, and writes nothing behind its buffers.
//
// random_layers_test [COUNT [FIRST]]: layer i of an endless list is the same on every machine, so
// COUNT = 1 replays one, and the digest of the reference's outputs is that of every architecture.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "check.h"
#include "digest/sha256.h"
#include "graph/shapes.h"
#include "graph/validate.h"
#include "kernels/conv/conv.h"
#include "random.h"
#include "runtime/launch.h"

namespace pyedge {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kGuard = 256;  // bytes behind every buffer that a kernel writes
constexpr uint8_t kGuardByte = 0xa5;
constexpr double kUsualMacs = 5e5, kManyMacs = 6e6;

// Corners are the two ends of the range at random; in kSame every product has one sign.
enum class Values { kAny, kCorners, kSame };
// kExact: powers of two, so that many results lie halfway between two steps.
enum class Scales { kUsual, kExact, kExtreme };

struct Layer {
  bool connected = false;
  int32_t batch = 1, in_h = 1, in_w = 1, in_c = 1, out_c = 1, groups = 1;
  int32_t kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1};
  int32_t pads[4] = {};  // top, left, bottom, right
  bool bias = false, slope = false, residual = false, f32_output = false;
  int32_t activation = 0;
  int32_t x_zero = 0, y_zero = 0, residual_zero = 0;
  float x_scale = 1.0f, y_scale = 1.0f, residual_scale = 1.0f;
  float lo = -kInfinity, hi = kInfinity;
  Values values = Values::kAny;
  Scales scales = Scales::kUsual;

  int32_t group_in_c() const { return in_c / groups; }
  int32_t k() const { return kernel[0] * kernel[1] * group_in_c(); }
  int32_t out_size(int axis) const {
    const int32_t padded = (axis == 0 ? in_h : in_w) + pads[axis] + pads[axis + 2];
    const int32_t span = (kernel[axis] - 1) * dilation[axis] + 1;
    return padded < span ? 0 : (padded - span) / stride[axis] + 1;
  }
  double macs() const {
    const double pixels = static_cast<double>(batch) * out_size(0) * out_size(1);
    return pixels * out_c * static_cast<double>(k());
  }
};

void print(uint64_t index, const Layer& l) {
  const char* const values[] = {"any", "corners", "same"};
  const char* const scales[] = {"usual", "exact", "extreme"};
  std::printf("layer %" PRIu64 ": %s, batch %d, %dx%d, %d > %d channels, %d groups, kernel %dx%d, ",
              index, l.connected ? "fully_connected" : "conv", l.batch, l.in_h, l.in_w, l.in_c,
              l.out_c, l.groups, l.kernel[0], l.kernel[1]);
  std::printf("stride %dx%d, dilation %dx%d, pads (top left bottom right) %d %d %d %d%s%s%s,\n",
              l.stride[0], l.stride[1], l.dilation[0], l.dilation[1], l.pads[0], l.pads[1],
              l.pads[2], l.pads[3], l.bias ? ", bias" : "", l.slope ? ", slope" : "",
              l.residual ? ", residual" : "");
  std::printf(
      "  activation %d, output %s, zero points %d %d %d and scales %a %a %a of x, y and the "
      "residual, ",
      l.activation, l.f32_output ? "f32" : "i8", l.x_zero, l.y_zero, l.residual_zero,
      static_cast<double>(l.x_scale), static_cast<double>(l.y_scale),
      static_cast<double>(l.residual_scale));
  std::printf("bounds %g %g, %s values, %s weight scales\n", static_cast<double>(l.lo),
              static_cast<double>(l.hi), values[static_cast<size_t>(l.values)],
              scales[static_cast<size_t>(l.scales)]);
}

constexpr int32_t kChannels[] = {1,  2,  3,  4,  5,  7,  8,  12, 13,  15,  16,  17, 24,
                                 31, 32, 33, 48, 63, 64, 65, 96, 127, 128, 130, 192};

void draw_channels(Random& random, Layer* l) {
  const int32_t kind = random.range(0, 9);
  l->in_c = random.pick(kChannels), l->out_c = random.pick(kChannels);
  if (kind < 3) {
    l->groups = l->out_c = l->in_c;  // depthwise
  } else if (kind == 3 && random.one_in(2)) {
    constexpr int32_t kFew[] = {1, 2, 2, 3, 4, 4, 5, 7, 8, 8, 16};
    constexpr int32_t kMany[] = {2, 3, 7, 8, 13, 16, 32, 64, 127};
    const int32_t in = random.pick(kFew), out = random.one_in(3) ? random.pick(kFew) : in;
    l->groups = random.pick(kMany);
    l->in_c = l->groups * in, l->out_c = l->groups * out;
  } else if (kind == 3) {
    l->groups = random.range(2, 5);
    l->in_c = l->groups * random.pick(kChannels), l->out_c = l->groups * random.pick(kChannels);
  } else if (kind == 4) {
    l->groups = l->in_c, l->out_c = l->in_c * random.range(2, 3);  // depthwise with a multiplier
  } else if (kind == 5) {
    l->connected = true;
    constexpr int32_t kLong[] = {255, 256, 512, 1000, 6272, 65536};
    if (random.one_in(2)) l->in_c = random.pick(kLong);
  }
}

void draw_window(Random& random, Layer* l) {
  constexpr int32_t kSizes[] = {1, 3, 3, 3, 5, 7}, kAsymmetric[] = {1, 2, 3, 4, 5, 7};
  constexpr int32_t kStrides[] = {1, 1, 1, 2, 2, 3}, kDilations[] = {1, 1, 1, 1, 2, 3};
  l->in_h = random.range(1, 16), l->in_w = random.range(1, random.one_in(2) ? 16 : 40);
  if (random.one_in(4)) return;  // 1x1, as half of all layers of a mobile network
  l->kernel[0] = l->kernel[1] = random.pick(kSizes);
  l->stride[0] = l->stride[1] = random.pick(kStrides);
  l->dilation[0] = l->dilation[1] = random.pick(kDilations);
  if (random.one_in(5)) l->kernel[1] = random.pick(kAsymmetric);
  if (random.one_in(5)) l->stride[1] = random.pick(kStrides);
  if (random.one_in(5)) l->dilation[1] = random.pick(kDilations);
  const bool same = random.one_in(2);
  for (int i = 0; i < 4; ++i) {
    l->pads[i] = same ? (l->kernel[i % 2] - 1) * l->dilation[i % 2] / 2 : random.range(0, 4);
  }
}

int32_t draw_zero_point(Random& random) {
  constexpr int32_t kOften[] = {0, 0, -128, -128, 127};
  return random.one_in(2) ? random.pick(kOften) : random.range(-128, 127);
}

// Everything but the values.
Layer draw(Random& random) {
  Layer l;
  draw_channels(random, &l);
  if (!l.connected) draw_window(random, &l);
  constexpr int32_t kBatches[] = {1, 1, 2, 3}, kRows[] = {1, 3, 8, 19};
  l.batch = l.connected ? random.pick(kRows) : random.pick(kBatches);
  l.bias = !random.one_in(4), l.slope = random.one_in(2), l.residual = random.one_in(2);
  if (random.one_in(3)) {
    l.activation = random.range(1, kActivations - 1);
    l.slope = l.residual = false;
  }
  l.f32_output = random.one_in(4);
  l.x_zero = draw_zero_point(random), l.y_zero = draw_zero_point(random);
  l.residual_zero = draw_zero_point(random);
  constexpr Values kValues[] = {Values::kAny, Values::kAny, Values::kCorners, Values::kSame};
  constexpr Scales kScales[] = {Scales::kUsual, Scales::kUsual, Scales::kUsual,
                                Scales::kExact, Scales::kExact, Scales::kExtreme};
  l.values = random.pick(kValues), l.scales = random.pick(kScales);
  if (l.scales == Scales::kUsual) {
    l.x_scale = random.real(0.01f, 0.1f), l.y_scale = random.real(0.01f, 0.1f);
    l.residual_scale = l.y_scale * random.real(0.3f, 2.0f);
  } else if (l.scales == Scales::kExact) {
    constexpr float kPowers[] = {0x1p-2f, 0x1p-1f, 1.0f, 2.0f};
    l.x_scale = random.pick(kPowers), l.y_scale = random.pick(kPowers);
    l.residual_scale = l.y_scale * random.pick(kPowers);
  } else {
    constexpr float kEnds[] = {1e-30f, 1e-10f, 1e-3f, 1.0f, 1e10f, 1e30f};
    l.x_scale = random.pick(kEnds), l.y_scale = random.pick(kEnds);
    l.residual_scale = random.pick(kEnds);
  }
  constexpr float kLow[] = {-kInfinity, -kInfinity, 0.0f, 0.0f, -20.0f};
  constexpr float kHigh[] = {kInfinity, kInfinity, 60.0f, 25.0f, 0.0f};
  l.lo = random.pick(kLow) * l.y_scale, l.hi = random.pick(kHigh) * l.y_scale;
  return l;
}

Layer make_layer(Random& random) {
  const double most = random.one_in(50) ? kManyMacs : kUsualMacs;
  for (;;) {
    const Layer l = draw(random);
    if (l.out_size(0) > 0 && l.out_size(1) > 0 && l.macs() <= most) return l;
  }
}

// The tensors of one layer, in buffers of their own with slack behind, as the executor gives them.
class Case {
 public:
  Case(const Layer& l, Random& random) : layer_(l) {
    Node& node = graph_.nodes.emplace_back();
    node.op = l.connected ? Op::k_fully_connected : Op::k_conv;
    if (!l.connected) {
      node.ints = {l.stride[0], l.stride[1], l.dilation[0], l.dilation[1], l.pads[0],
                   l.pads[1],   l.pads[2],   l.pads[3],     l.groups};
    }
    node.ints.push_back(l.activation);
    node.floats = {l.lo, l.hi};
    const std::vector<int32_t> x_dims = l.connected
                                            ? std::vector<int32_t>{l.batch, l.in_c}
                                            : std::vector<int32_t>{l.batch, l.in_h, l.in_w, l.in_c};
    const std::vector<int32_t> w_dims =
        l.connected ? std::vector<int32_t>{l.out_c, l.in_c}
                    : std::vector<int32_t>{l.out_c, l.kernel[0], l.kernel[1], l.group_in_c()};
    const std::vector<int32_t> y_dims =
        l.connected ? std::vector<int32_t>{l.batch, l.out_c}
                    : std::vector<int32_t>{l.batch, l.out_size(0), l.out_size(1), l.out_c};
    // The products of kSame are as far from zero as they get, all of one sign.
    add_i8(x_dims, {l.x_scale, l.x_zero}, random.one_in(4) ? 127 : -128, random);
    add_i8(w_dims, {}, random.one_in(2) ? -127 : 127, random);
    add_channels(l.bias, [&] { return bias(random); });
    add_channels(true, [&] { return weight_scale(random); });
    add_channels(l.slope, [&] { return slope(random); });
    if (!l.residual) {
      add({}, DType::kF32, {});
    } else if (l.f32_output) {
      fill_f32(add(y_dims, DType::kF32, {}), [&] { return random.real(-60, 60) * l.y_scale; });
    } else {
      add_i8(y_dims, {l.residual_scale, l.residual_zero}, -128, random);
    }
    const DType dtype = l.f32_output ? DType::kF32 : DType::kI8;
    views_.push_back(view(y_dims, dtype, {l.f32_output ? 0.0f : l.y_scale, l.y_zero}));
    check_shape_inference(y_dims);
  }

  // The arguments with `output` in the place of the output's data.
  OpArgs args(void* output) {
    views_.back().data = output;
    const Node& node = graph_.nodes[0];
    const int inputs = static_cast<int>(views_.size()) - 1;
    return {node.op,
            node.ints.data(),
            static_cast<int>(node.ints.size()),
            node.floats.data(),
            static_cast<int>(node.floats.size()),
            views_.data(),
            inputs,
            views_.data() + inputs,
            1};
  }
  size_t output_bytes() const {
    return views_.back().shape.elements() * dtype_bytes(views_.back().dtype);
  }

 private:
  static TensorView view(const std::vector<int32_t>& dims, DType dtype, Quant quant) {
    TensorView v;
    for (const int32_t dim : dims) v.shape[v.shape.rank++] = dim;
    v.dtype = dtype, v.quant = quant, v.present = !dims.empty();
    return v;
  }

  // Without dimensions: an empty slot.
  TensorView& add(const std::vector<int32_t>& dims, DType dtype, Quant quant) {
    Node& node = graph_.nodes[0];
    views_.push_back(view(dims, dtype, quant));
    TensorView& v = views_.back();
    node.inputs.push_back(v.present ? static_cast<int32_t>(graph_.tensors.size()) : kAbsent);
    if (!v.present) return v;
    Tensor& tensor = graph_.tensors.emplace_back();
    tensor.dtype = dtype, tensor.shape = v.shape, tensor.quant = quant, tensor.constant = true;
    buffers_.emplace_back();
    const size_t bytes = v.shape.elements() * dtype_bytes(dtype);
    CHECK(buffers_.back().allocate(bytes + kSlack));
    v.data = buffers_.back().data();
    std::memset(v.mutable_as<uint8_t>() + bytes, 0x7f, kSlack);  // what lies there must not matter
    return v;
  }

  // `same` is what kSame fills with. Weights (without a scale here) do not go down to -128.
  void add_i8(const std::vector<int32_t>& dims, Quant quant, int32_t same, Random& random) {
    TensorView& v = add(dims, DType::kI8, quant);
    const int32_t lowest = quant.scale > 0.0f ? -128 : -127;
    for (size_t i = 0; i < v.shape.elements(); ++i) {
      const int32_t value = layer_.values == Values::kAny    ? random.range(lowest, 127)
                            : layer_.values == Values::kSame ? same
                            : random.one_in(2)               ? lowest
                                                             : 127;
      v.mutable_as<int8_t>()[i] = static_cast<int8_t>(value);
    }
  }

  template <typename Value>
  static void fill_f32(TensorView& v, Value value) {
    for (size_t i = 0; i < v.shape.elements(); ++i) v.mutable_as<float>()[i] = value();
  }

  template <typename Value>
  void add_channels(bool present, Value value) {
    TensorView& v =
        add(present ? std::vector<int32_t>{layer_.out_c} : std::vector<int32_t>{}, DType::kF32, {});
    if (present) fill_f32(v, value);
  }

  float bias(Random& random) const {
    if (layer_.scales == Scales::kExact) {
      return layer_.y_scale * 0.5f * static_cast<float>(random.range(-40, 40));
    }
    const float value = layer_.y_scale * random.real(-40.0f, 40.0f);
    return layer_.scales == Scales::kExtreme && random.one_in(4) ? value * 1e6f : value;
  }

  // Most outputs of random values land inside the range of i8, some outside: 5,400 is the standard
  // deviation of a product.
  float weight_scale(Random& random) const {
    const float deviation = 5400.0f * std::sqrt(static_cast<float>(layer_.k()));
    const float usual = 60.0f * layer_.y_scale / (layer_.x_scale * deviation);
    if (layer_.scales == Scales::kUsual) return usual * random.real(0.5f, 2.0f);
    if (layer_.scales == Scales::kExact) return std::exp2(std::round(std::log2(usual)));
    constexpr float kEnds[] = {1e-38f, 1e-30f, 1e-10f, 1e-3f, 1e10f, 3e38f};
    return random.one_in(2) && usual < 1e38f ? usual : random.pick(kEnds);
  }

  float slope(Random& random) const {
    constexpr float kExact[] = {0.0f, 0.25f, 0.5f, 1.0f, -0.5f},
                    kEnds[] = {0.0f, -1.0f, 1e-30f, 1e30f, -1e30f};
    if (layer_.scales == Scales::kExact) return random.pick(kExact);
    if (layer_.scales == Scales::kExtreme) return random.pick(kEnds);
    return random.real(-0.5f, 1.5f);
  }

  void check_shape_inference(const std::vector<int32_t>& y_dims) {
    graph_.nodes[0].outputs = {static_cast<int32_t>(graph_.tensors.size())};
    graph_.tensors.emplace_back();
    std::vector<Shape> shapes;
    CHECK(infer_shapes(graph_, {}, &shapes).ok());
    CHECK(shapes.back() == view(y_dims, DType::kF32, {}).shape);
    CHECK(static_cast<size_t>(layer_.k()) <= kMaxAccumulations);
  }

  Layer layer_;
  Graph graph_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<TensorView> views_;
};

// A buffer whose bytes beyond the first `bytes` must stay as they are.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes) {
    CHECK(buffer_.allocate(bytes + kGuard));
    std::memset(buffer_.data(), kGuardByte, bytes + kGuard);
  }
  uint8_t* data() { return buffer_.data(); }
  bool intact() const {
    const uint8_t* guard = buffer_.data() + bytes_;
    return std::all_of(guard, guard + kGuard, [](uint8_t byte) { return byte == kGuardByte; });
  }

 private:
  AlignedBuffer buffer_;
  size_t bytes_;
};

struct Outcome {
  std::vector<uint8_t> output;
  bool intact;
};

Outcome run(const Kernel& kernel, Case* layer, ThreadPool* pool) {
  Guarded output(layer->output_bytes());
  const OpArgs args = layer->args(output.data());
  Guarded prepared(kernel.prepared_bytes ? kernel.prepared_bytes(args) : 0);
  const size_t scratch_bytes = kernel.scratch_bytes ? kernel.scratch_bytes(args) : 0;
  Guarded scratch(align_up(scratch_bytes) * static_cast<size_t>(pool->threads()));
  // The executor hands it zeros; scratch comes as the last kernel left it.
  if (kernel.prepare) {
    std::memset(prepared.data(), 0, kernel.prepared_bytes(args));
    kernel.prepare(args, prepared.data());
  }
  launch(pool, {&kernel, &args, prepared.data(), scratch.data(), align_up(scratch_bytes)},
         kernel.tasks(args));
  Outcome outcome{{output.data(), output.data() + layer->output_bytes()},
                  output.intact() && prepared.intact() && scratch.intact()};
  if (args.outputs[0].dtype == DType::kF32) {  // the sign of a zero is not promised
    for (size_t i = 0; i < outcome.output.size(); i += sizeof(float)) {
      float value;
      std::memcpy(&value, outcome.output.data() + i, sizeof value);
      value += 0.0f;
      std::memcpy(outcome.output.data() + i, &value, sizeof value);
    }
  }
  return outcome;
}

struct Tested {
  const Kernel* kernel;
  uint64_t layers = 0;
};

class RandomLayers {
 public:
  RandomLayers() {
    size_t count = 0;
    const Kernel* const* all = kernels(&count);
    for (size_t i = 0; i < count; ++i) {
      if (all[i]->op != Op::k_conv || std::strstr(all[i]->name, "_i8_") == nullptr) continue;
      (all[i]->isa == Isa::reference ? reference_ : tested_.emplace_back().kernel) = all[i];
    }
    CHECK(reference_ != nullptr);
  }

  // False where a kernel gave anything but the bytes of the reference.
  bool check(uint64_t index) {
    Random random(index * 0x2545f4914f6cdd1du);
    const Layer layer = make_layer(random);
    Case data(layer, random);
    const Outcome want = run(*reference_, &data, &one_);
    CHECK(want.intact);
    digest_.update(want.output.data(), want.output.size());
    bool same = true;
    for (Tested& tested : tested_) {
      const Kernel& kernel = *tested.kernel;
      if (!runs_on(kernel.isa, cpu_features()) || !kernel.accepts(data.args(nullptr))) continue;
      ++tested.layers;
      for (ThreadPool* pool : {&one_, &three_}) {
        const Outcome got = run(kernel, &data, pool);
        if (got.intact && got.output == want.output) continue;
        if (same) print(index, layer);
        same = false;
        report(kernel, pool->threads(), want, got);
      }
    }
    return same;
  }

  // False where a kernel that runs here took none of the layers.
  bool summarize() {
    bool reached = true;
    for (const Tested& tested : tested_) {
      const Kernel& kernel = *tested.kernel;
      if (!runs_on(kernel.isa, cpu_features())) {
        std::printf("%-32s NOT TESTED: this CPU has no %s\n", kernel.name,
                    isa_table()[static_cast<size_t>(kernel.isa)].name);
        continue;
      }
      std::printf("%-32s %" PRIu64 " layers\n", kernel.name, tested.layers);
      reached = reached && tested.layers > 0;
    }
    std::string hex;
    char two[3];
    for (const uint8_t byte : digest_.digest()) {
      std::snprintf(two, sizeof two, "%02x", byte);
      hex += two;
    }
    std::printf("SHA-256 of the reference's outputs: %s\n", hex.c_str());
    return reached;
  }

 private:
  static void report(const Kernel& kernel, int threads, const Outcome& want, const Outcome& got) {
    size_t first = want.output.size(), count = 0;
    for (size_t i = want.output.size(); i-- > 0;) {
      if (got.output[i] != want.output[i]) first = i, ++count;
    }
    std::printf("  %s, %d threads: %zu of %zu bytes differ, the first at %zu%s\n", kernel.name,
                threads, count, want.output.size(), first,
                got.intact ? "" : "; it wrote behind a buffer");
  }

  const Kernel* reference_ = nullptr;
  std::vector<Tested> tested_;
  ThreadPool one_{1}, three_{3};
  Sha256 digest_;
};

}  // namespace
}  // namespace pyedge

int main(int argc, char** argv) {
  return pyedge::check_items<pyedge::RandomLayers>(argc, argv, 1000, "layers");
}
