// The graph as plain data. Built by format/, read by everything else, changed by nobody.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace pyedge {

constexpr int kMaxRank = 6;
constexpr int32_t kAnyDim = -1;  // of a graph input: decided when the model runs
constexpr int32_t kAbsent = -1;  // of a node input

// kF16 is for weights alone: kernels expand them when they pack.
enum class DType : uint8_t { kF32 = 0, kI8 = 1, kF16 = 2 };

inline size_t dtype_bytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : dtype == DType::kF16 ? 2 : 1;
}

enum class Op : uint32_t {
#define OP(code, name, min_inputs, max_inputs, outputs, ints, floats) k_##name = code,
#include "graph/ops.def"
#undef OP
};

struct OpInfo {
  Op op;
  const char* name;
  int min_inputs, max_inputs, outputs;
  const char* ints;  // attribute names separated by spaces; "..." repeats the last
  const char* floats;
};

// Null for a code that is not in the table.
const OpInfo* find_op(uint32_t code);
const std::vector<OpInfo>& op_table();

struct Shape {
  int rank = 0;
  std::array<int32_t, kMaxRank> dims{};

  int32_t operator[](int axis) const { return dims[static_cast<size_t>(axis)]; }
  int32_t& operator[](int axis) { return dims[static_cast<size_t>(axis)]; }
  bool operator==(const Shape& other) const {
    return rank == other.rank && dims == other.dims;  // dims past rank are zero
  }
  bool operator!=(const Shape& other) const { return !(*this == other); }
  // Shapes pass validation only where the product fits, so this cannot overflow.
  size_t elements() const {
    size_t n = 1;
    for (int axis = 0; axis < rank; ++axis) n *= static_cast<size_t>((*this)[axis]);
    return n;
  }
  std::string to_string() const;
};

struct Quant {
  float scale = 0.0f;  // real = scale * (q - zero_point)
  int32_t zero_point = 0;
};

struct Tensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;  // of constants and graph inputs; others are inferred
  Quant quant;  // of i8 activations
  bool constant = false;
  const uint8_t* data = nullptr;  // of constants: into the model's bytes, 64-byte aligned
};

struct Node {
  Op op;
  std::string name;
  std::vector<int32_t> inputs;  // tensor index per slot, kAbsent where optional and missing
  std::vector<int32_t> outputs;
  std::vector<int32_t> ints;
  std::vector<float> floats;
};

enum class ColorOrder : uint32_t { kNone = 0, kRgb = 1, kBgr = 2 };

// What is needed to use the network right: tensor = (pixel - mean) * scale per channel, in the
// order of the colour channels that the network takes.
struct Metadata {
  ColorOrder color = ColorOrder::kNone;
  int32_t input_width = 0, input_height = 0;
  std::array<float, 3> mean{};
  std::array<float, 3> scale{};
  int32_t embedding_size = 0;  // 0 where the network is not an embedder
  bool has_landmarks = false;
  std::array<float, 10> landmarks{};  // five points (x, y) in input pixels
  std::string model_name, feature_space, producer;
};

struct Graph {
  std::vector<Tensor> tensors;
  std::vector<Node> nodes;  // in an order in which they can run
  std::vector<int32_t> inputs, outputs;
  Metadata metadata;
};

}  // namespace pyedge
