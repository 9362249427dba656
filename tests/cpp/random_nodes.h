// Random nodes of every operation, of odd sizes: everything but the values of their tensors.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "kernels/conv/activation.h"
#include "random.h"

namespace pyedge {
namespace {

using Dims = std::vector<int32_t>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kMostElements = 60000;  // of an input

struct Input {
  Dims dims;
  DType dtype = DType::kF32;
  Quant quant;
  bool present = true, finite = false;
  float low = -8.0f, high = 8.0f;
};

struct Drawn {
  Op op{};
  DType dtype = DType::kF32;  // of the activations
  std::vector<int32_t> ints;
  std::vector<float> floats;
  std::vector<Input> inputs;
  DType out = DType::kF32;
  Quant quant;

  Input& add(const Dims& dims, DType type, Quant q = {}) {
    inputs.push_back({dims, type, q});
    return inputs.back();
  }
};

Quant draw_quant(Random& random) {
  constexpr int32_t kZeros[] = {0, 0, -128, 127, 17};
  return {random.real(0.01f, 0.1f),
          random.one_in(3) ? random.range(-128, 127) : random.pick(kZeros)};
}

int32_t draw_dim(Random& random) {
  constexpr int32_t kDims[] = {1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 33, 64, 65, 127, 130};
  return random.pick(kDims);
}

int32_t draw_channels(Random& random) {
  constexpr int32_t kLong[] = {160, 200, 256, 333};
  return random.one_in(6) ? random.pick(kLong) : draw_dim(random);
}

int64_t elements(const Dims& dims) {
  int64_t n = 1;
  for (const int32_t dim : dims) n *= dim;
  return n;
}

Dims draw_dims(Random& random, int least_rank, int most_rank) {
  for (;;) {
    Dims dims(static_cast<size_t>(random.range(least_rank, most_rank)));
    for (int32_t& dim : dims) dim = draw_dim(random);
    if (elements(dims) <= kMostElements) return dims;
  }
}

Dims draw_image(Random& random) {
  for (;;) {
    const Dims dims{random.range(1, 3), random.range(1, 21), random.range(1, 40),
                    draw_channels(random)};
    if (elements(dims) <= kMostElements) return dims;
  }
}

void draw_bounds(Random& random, std::vector<float>* floats) {
  constexpr float kLow[] = {-kInfinity, -kInfinity, 0.0f, -1.5f};
  constexpr float kHigh[] = {kInfinity, kInfinity, 6.0f, 1.25f};
  *floats = {random.pick(kLow), random.pick(kHigh)};
}

// ints: stride, dilation, pads, then what the operation has more.
void draw_window(Random& random, int32_t kernel_h, int32_t kernel_w, std::vector<int32_t>* ints) {
  constexpr int32_t kStrides[] = {1, 1, 1, 2, 2, 3}, kDilations[] = {1, 1, 1, 2};
  const int32_t stride = random.pick(kStrides), dilation = random.pick(kDilations);
  *ints = {stride, random.one_in(5) ? random.pick(kStrides) : stride, dilation,
           random.one_in(5) ? random.pick(kDilations) : dilation};
  const bool same = random.one_in(2);
  for (int i = 0; i < 4; ++i) {
    ints->push_back(same ? (i % 2 == 0 ? kernel_h : kernel_w) / 2 : random.range(0, 3));
  }
}

void add_layer_constants(Random& random, int32_t out_c, bool i8, Drawn* n) {
  n->add({out_c}, DType::kF32).present = !random.one_in(4);
  Input& scale = n->add({out_c}, DType::kF32);
  scale.present = i8, scale.finite = true, scale.low = 1e-5f, scale.high = 1e-3f;
  n->add({out_c}, DType::kF32).present = random.one_in(2);
}

// In the place of the slope that was drawn.
void draw_activation(Random& random, Drawn* n) {
  n->ints.push_back(random.range(0, kActivations - 1));
  if (n->ints.back() != 0) n->inputs.back().present = false;
}

void draw_conv(Random& random, Drawn* n) {
  constexpr int32_t kSizes[] = {1, 1, 3, 3, 3, 5, 5, 7}, kAsymmetric[] = {1, 2, 3, 4, 5};
  const int32_t kernel_h = random.pick(kSizes);
  const int32_t kernel_w = random.one_in(5) ? random.pick(kAsymmetric) : kernel_h;
  const int32_t kind = n->op == Op::k_conv ? random.range(0, 5) : random.range(2, 5);
  int32_t groups = 1, in_c = draw_channels(random), out_c = draw_channels(random);
  if (kind < 2) {
    groups = out_c = in_c;
  } else if (kind == 2 && random.one_in(2)) {
    groups = random.range(2, 5);
    in_c = groups * random.range(1, 19), out_c = groups * random.range(1, 40);
  } else if (kind == 2) {
    constexpr int32_t kFew[] = {1, 2, 2, 2, 3, 4, 4, 5, 7, 8, 16};
    constexpr int32_t kMany[] = {2, 3, 7, 8, 13, 16, 32, 64, 127};
    const int32_t in = random.pick(kFew), out = random.one_in(3) ? random.pick(kFew) : in;
    groups = random.pick(kMany);
    in_c = groups * in, out_c = groups * out;
  }
  n->add({random.range(1, 3), random.range(1, 16), random.range(1, 30), in_c}, n->dtype, n->quant);
  n->add({out_c, kernel_h, kernel_w, in_c / groups}, n->dtype).finite = true;
  draw_window(random, kernel_h, kernel_w, &n->ints);
  if (n->op == Op::k_conv_transpose) {
    for (int i = 0; i < 2; ++i)
      n->ints.push_back(random.range(0, n->ints[static_cast<size_t>(i)] - 1));
  }
  n->ints.push_back(groups);
  add_layer_constants(random, out_c, n->dtype == DType::kI8, n);
  if (n->op == Op::k_conv) draw_activation(random, n);
  draw_bounds(random, &n->floats);
}

void draw_fully_connected(Random& random, Drawn* n) {
  const int32_t in_c = draw_channels(random) * random.range(1, 4), out_c = draw_channels(random);
  n->add({random.range(1, 19), in_c}, DType::kF32);
  n->add({out_c, in_c}, DType::kF32).finite = true;
  add_layer_constants(random, out_c, false, n);
  draw_activation(random, n);
  draw_bounds(random, &n->floats);
}

void draw_binary(Random& random, Drawn* n) {
  Dims a = draw_dims(random, 0, 5), b = a;
  const int32_t kind = random.range(0, 4);
  if (kind == 0 && !a.empty()) b = {a.back()};
  if (kind == 1) b = {};
  if (kind == 2) {
    for (int32_t& dim : a) dim = random.one_in(3) ? 1 : dim;
    for (int32_t& dim : b) dim = random.one_in(3) ? 1 : dim;
  }
  if (kind == 3) {  // an image and a value for each of its few channels
    a = {1, random.range(20, 60), random.range(20, 60), random.range(1, 8)};
    b = {a.back()};
  }
  if (random.one_in(3)) std::swap(a, b);
  const bool mixed = n->op != Op::k_div && random.one_in(3);
  for (const Dims& dims : {a, b}) {
    const DType dtype = random.one_in(2) ? DType::kI8 : DType::kF32;
    n->add(dims, mixed ? dtype : n->dtype, draw_quant(random));
  }
  draw_bounds(random, &n->floats);
}

void draw_pool(Random& random, Drawn* n) {
  const Dims image = draw_image(random);
  const bool global = random.one_in(4);
  const int32_t kernel_h = random.range(1, 4), kernel_w = random.range(1, 4);
  n->ints = {global, kernel_h, kernel_w, random.range(1, 3), random.range(1, 3)};
  for (int i = 0; i < 4; ++i) {
    n->ints.push_back(random.range(0, (i % 2 == 0 ? kernel_h : kernel_w) / 2));
  }
  n->ints.push_back(random.range(0, 1));
  if (n->op == Op::k_average_pool) n->ints.push_back(random.range(0, 1));
  n->add(image, n->dtype, random.one_in(2) ? n->quant : draw_quant(random));
}

void draw_concat(Random& random, Drawn* n) {
  const Dims dims = draw_dims(random, 1, 4);
  const int32_t axis = random.range(0, static_cast<int32_t>(dims.size()) - 1);
  n->ints = {axis};
  for (int32_t i = random.range(1, 5); i > 0; --i) {
    Dims part = dims;
    part[static_cast<size_t>(axis)] = draw_dim(random);
    n->add(part, n->dtype, random.one_in(2) ? n->quant : draw_quant(random));
  }
}

void draw_resize(Random& random, Drawn* n) {
  n->ints = {random.range(0, 1), random.range(0, 3), random.range(0, 3), 0, 0};
  n->floats = {random.real(0.4f, 2.5f), random.real(0.4f, 2.5f)};
  if (random.one_in(2)) n->ints[3] = random.range(1, 20), n->ints[4] = random.range(1, 20);
  Dims image = draw_image(random);
  image[3] = std::min(image[3], 65);
  n->add(image, n->dtype, random.one_in(2) ? n->quant : draw_quant(random));
}

void draw_pad(Random& random, Drawn* n) {
  const Dims dims = draw_dims(random, 1, 4);
  const int32_t mode = random.range(0, 2);
  n->ints = {mode};
  for (const int32_t dim : dims) {
    const int32_t most = mode == 1 ? std::min(dim - 1, 3) : 3;
    const bool cut = mode == 0 && dim > 4 && random.one_in(6);
    for (int i = 0; i < 2; ++i)
      n->ints.push_back(cut ? -1 : random.one_in(2) ? 0 : random.range(0, most));
  }
  n->floats = {random.real(-2.0f, 2.0f)};
  n->add(dims, n->dtype, random.one_in(2) ? n->quant : draw_quant(random));
}

void draw_transpose(Random& random, Drawn* n) {
  const bool image = random.one_in(2);
  Dims dims =
      image ? Dims{random.range(1, 2), random.range(1, 5), random.range(1, 70), random.range(1, 70)}
            : draw_dims(random, 1, 6);
  if (image && random.one_in(2)) std::swap(dims[1], dims[3]);
  for (size_t i = 0; i < dims.size(); ++i) n->ints.push_back(static_cast<int32_t>(i));
  if (image) {
    n->ints =
        random.one_in(2) ? std::vector<int32_t>{0, 2, 3, 1} : std::vector<int32_t>{0, 3, 1, 2};
  } else {
    for (size_t i = dims.size(); i-- > 1;) {
      std::swap(n->ints[i], n->ints[static_cast<size_t>(random.range(0, static_cast<int32_t>(i)))]);
    }
  }
  n->add(dims, n->dtype, n->quant);
}

void draw_slice(Random& random, Drawn* n) {
  const Dims dims = draw_dims(random, 1, 4);
  const int32_t axis = random.range(0, static_cast<int32_t>(dims.size()) - 1);
  constexpr int32_t kSteps[] = {1, 1, 1, 2, -1, -3};
  const int32_t length = dims[static_cast<size_t>(axis)];
  n->ints = {axis, random.range(-length, length), random.range(-length - 2, length + 2),
             random.pick(kSteps)};
  n->add(dims, n->dtype, n->quant);
}

void draw_reduce(Random& random, Drawn* n) {
  const Dims dims = random.one_in(2) ? draw_image(random) : draw_dims(random, 1, 5);
  n->ints = {random.range(0, 1)};
  for (size_t i = 0; i < dims.size(); ++i) {
    const bool plane = dims.size() == 4 && (i == 1 || i == 2);
    if (plane || random.one_in(3)) n->ints.push_back(static_cast<int32_t>(i));
  }
  if (n->ints.size() == 1) n->ints.push_back(0);
  n->add(dims, n->dtype, draw_quant(random));
}

void draw_unary(Random& random, Drawn* n) {
  const Dims dims = draw_dims(random, 1, 4);
  n->add(dims, n->dtype, draw_quant(random));
  if (n->op == Op::k_prelu) n->add({dims.back()}, DType::kF32);
  if (n->op == Op::k_clip) n->floats = {-1.5f, random.real(0.0f, 6.0f)};
  if (n->op == Op::k_hard_sigmoid) n->floats = {0.2f, 0.5f};
}

void draw_line(Random& random, Drawn* n) {
  const Dims dims = draw_dims(random, 1, 4);
  n->ints = {random.range(0, static_cast<int32_t>(dims.size()) - 1)};
  if (n->op == Op::k_l2_normalize) n->floats = {1e-12f};
  // Tensors of these operations are finite; NaN would come out with any sign.
  n->add(dims, DType::kF32).finite = true;
}

// The types of activations and output: f32, either, or from one to the other.
enum class Types { kF32, kEither, kQuantize, kDequantize };

struct Row {
  Op op;
  Types types;
  void (*draw)(Random&, Drawn*);
};

constexpr Row kRows[] = {
    {Op::k_conv, Types::kF32, draw_conv},
    {Op::k_fully_connected, Types::kF32, draw_fully_connected},
    {Op::k_conv_transpose, Types::kEither, draw_conv},
    {Op::k_clip, Types::kEither, draw_unary},
    {Op::k_prelu, Types::kEither, draw_unary},
    {Op::k_sigmoid, Types::kEither, draw_unary},
    {Op::k_hard_sigmoid, Types::kEither, draw_unary},
    {Op::k_hard_swish, Types::kEither, draw_unary},
    {Op::k_tanh, Types::kEither, draw_unary},
    {Op::k_add, Types::kEither, draw_binary},
    {Op::k_sub, Types::kEither, draw_binary},
    {Op::k_mul, Types::kEither, draw_binary},
    {Op::k_div, Types::kEither, draw_binary},
    {Op::k_max_pool, Types::kEither, draw_pool},
    {Op::k_average_pool, Types::kEither, draw_pool},
    {Op::k_concat, Types::kEither, draw_concat},
    {Op::k_slice, Types::kEither, draw_slice},
    {Op::k_resize, Types::kEither, draw_resize},
    {Op::k_pad, Types::kEither, draw_pad},
    {Op::k_transpose, Types::kEither, draw_transpose},
    {Op::k_reduce_mean, Types::kEither, draw_reduce},
    {Op::k_reduce_sum, Types::kEither, draw_reduce},
    {Op::k_reduce_l2, Types::kF32, draw_reduce},
    {Op::k_softmax, Types::kF32, draw_line},
    {Op::k_l2_normalize, Types::kF32, draw_line},
    {Op::k_quantize, Types::kQuantize, draw_unary},
    {Op::k_dequantize, Types::kDequantize, draw_unary},
};

// Convolutions come up more often than the others.
Row draw_row(Random& random) { return random.one_in(4) ? kRows[0] : random.pick(kRows); }

Drawn draw(Random& random, const Row& row) {
  Drawn n;
  n.op = row.op;
  const bool i8 = row.types == Types::kEither && random.one_in(2);
  n.dtype = i8 || row.types == Types::kDequantize ? DType::kI8 : DType::kF32;
  n.out = i8 || row.types == Types::kQuantize ? DType::kI8 : DType::kF32;
  if (n.dtype == DType::kI8 || n.out == DType::kI8) n.quant = draw_quant(random);
  if (n.op == Op::k_conv_transpose && random.one_in(3)) n.out = DType::kF32;
  row.draw(random, &n);
  return n;
}

}  // namespace
}  // namespace pyedge
