// Small graphs made by hand, with constants that live as long as the model.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "runtime/session.h"

namespace pyedge {

class GraphBuilder {
 public:
  GraphBuilder() : model_(std::make_shared<Model>()) {
    // Constants are placed here one after the other; 1 MiB is more than any test needs.
    if (!model_->bytes.allocate(size_t{1} << 20)) std::abort();
  }

  int32_t input(const std::vector<int32_t>& dims) {
    const int32_t index = value(DType::kF32);
    Shape& shape = graph().tensors.back().shape;
    for (const int32_t dim : dims) shape[shape.rank++] = dim;
    graph().inputs.push_back(index);
    return index;
  }

  int32_t value(DType dtype, Quant quant = {}) {
    Tensor t;
    t.name = "t" + std::to_string(graph().tensors.size());
    t.dtype = dtype, t.quant = quant;
    graph().tensors.push_back(t);
    return static_cast<int32_t>(graph().tensors.size() - 1);
  }

  template <typename T>
  int32_t constant(const std::vector<int32_t>& dims, const std::vector<T>& values) {
    const int32_t index = value(sizeof(T) == 1 ? DType::kI8 : DType::kF32);
    Tensor& t = graph().tensors.back();
    for (const int32_t dim : dims) t.shape[t.shape.rank++] = dim;
    t.constant = true;
    t.data = model_->bytes.data() + used_;
    std::memcpy(model_->bytes.data() + used_, values.data(), values.size() * sizeof(T));
    used_ += (values.size() * sizeof(T) + 127) / 64 * 64;
    return index;
  }

  int32_t node(Op op, const std::vector<int32_t>& inputs, int32_t output,
               const std::vector<int32_t>& ints = {}, const std::vector<float>& floats = {}) {
    graph().nodes.push_back(
        {op, "n" + std::to_string(graph().nodes.size()), inputs, {output}, ints, floats});
    return output;
  }

  // A 3x3 convolution with stride 1, padding 1 and random weights.
  int32_t conv(int32_t x, int32_t in_c, int32_t out_c) {
    const int32_t weight = constant({out_c, 3, 3, in_c}, normal(out_c * 9 * in_c));
    return node(Op::k_conv, {x, weight}, value(DType::kF32), {1, 1, 1, 1, 1, 1, 1, 1, 1},
                {0.0f, std::numeric_limits<float>::infinity()});
  }

  std::vector<float> normal(int32_t count) {
    std::normal_distribution<float> distribution;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = distribution(random_);
    return values;
  }

  Graph& graph() { return model_->graph; }

  std::shared_ptr<LoadedModel> finish(int32_t output) {
    graph().outputs = {output};
    auto loaded = std::make_shared<LoadedModel>();
    loaded->model = model_;
    return loaded;
  }

 private:
  std::shared_ptr<Model> model_;
  size_t used_ = 0;
  std::mt19937 random_{1};
};

}  // namespace pyedge
