#include "graph/validate.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

constexpr int32_t kMaxWindow = 1 << 12;  // kernels, strides, dilations, pads

// "a b..." names at least one value, "a b?" one or two, "a b" exactly two.
bool attribute_count_fits(const char* names, size_t count) {
  size_t named = names[0] == '\0' ? 0 : 1;
  for (const char* c = names; *c; ++c) named += *c == ' ';
  if (std::strchr(names, '?')) return count == named || count + 1 == named;
  return std::strstr(names, "...") ? count >= named && count <= named + 2 * kMaxRank
                                   : count == named;
}

class Validator {
 public:
  explicit Validator(const Graph& graph) : graph_(graph) {}

  Status run() {
    available_.assign(graph_.tensors.size(), false);
    PYEDGE_RETURN_IF_ERROR(check_tensors());
    PYEDGE_RETURN_IF_ERROR(check_inputs());
    for (const Node& node : graph_.nodes) PYEDGE_RETURN_IF_ERROR(check_node(node));
    for (const int32_t index : graph_.outputs) {
      if (!in_range(index) || !available_[static_cast<size_t>(index)] || tensor(index).constant) {
        return invalid_model("outputs: tensor " + std::to_string(index) + " is not computed");
      }
      if (tensor(index).dtype != DType::kF32) {
        return invalid_model("outputs: " + tensor(index).name + " is not f32");
      }
    }
    return {};
  }

 private:
  const Tensor& tensor(int32_t index) const { return graph_.tensors[static_cast<size_t>(index)]; }
  bool in_range(int32_t index) const {
    return index >= 0 && static_cast<size_t>(index) < graph_.tensors.size();
  }

  Status check_tensors() {
    for (size_t i = 0; i < graph_.tensors.size(); ++i) {
      const Tensor& t = graph_.tensors[i];
      const std::string field = "tensor " + std::to_string(i) + " (" + t.name + ")";
      // A weight's scales come by channel, so a constant i8 tensor may have none of its own.
      if (t.dtype == DType::kI8 && !(t.constant && t.quant.scale == 0.0f)) {
        if (!(t.quant.scale >= 1e-30f && t.quant.scale <= 1e30f)) {
          return invalid_model(field + ".scale: must be positive and finite");
        }
        if (t.quant.zero_point < -128 || t.quant.zero_point > 127) {
          return invalid_model(field + ".zero_point: must lie in -128..127");
        }
      }
      if (t.dtype == DType::kF16 && !t.constant) {
        return invalid_model(field + ".dtype: f16 is for constants");
      }
      if (!t.constant) continue;
      available_[i] = true;
      if (!is_finite(t)) {
        return invalid_model(field + ".data: holds a value that is not finite");
      }
    }
    return {};
  }

  static bool is_finite(const Tensor& t) {
    const size_t elements = t.shape.elements();
    bool finite = true;
    if (t.dtype == DType::kF32) {
      const auto* values = reinterpret_cast<const float*>(t.data);
      for (size_t i = 0; i < elements; ++i) finite &= std::isfinite(values[i]);
    } else if (t.dtype == DType::kF16) {
      const auto* halves = reinterpret_cast<const uint16_t*>(t.data);
      for (size_t i = 0; i < elements; ++i) finite &= (halves[i] & 0x7c00) != 0x7c00;
    }
    return finite;
  }

  Status check_inputs() {
    for (const int32_t index : graph_.inputs) {
      if (!in_range(index) || tensor(index).constant || available_[static_cast<size_t>(index)]) {
        return invalid_model("inputs: tensor " + std::to_string(index) +
                             " is missing, constant or named twice");
      }
      available_[static_cast<size_t>(index)] = true;
      const Tensor& t = tensor(index);
      if (t.dtype != DType::kF32) return invalid_model("inputs: " + t.name + " is not f32");
      if (t.shape.rank < 1) return invalid_model("inputs: " + t.name + " has no shape");
      Shape sized = t.shape;
      for (int axis = 0; axis < sized.rank; ++axis) {
        if (sized[axis] == kAnyDim) sized[axis] = 1;
      }
      PYEDGE_RETURN_IF_ERROR(check_shape(sized, "input " + t.name));
    }
    return {};
  }

  Status check_node(const Node& node) {
    node_ = &node;
    const OpInfo& info = *find_op(static_cast<uint32_t>(node.op));
    const auto min_inputs = static_cast<size_t>(info.min_inputs);
    if (node.inputs.size() < min_inputs ||
        node.inputs.size() > static_cast<size_t>(info.max_inputs)) {
      return error("inputs: there are " + std::to_string(node.inputs.size()));
    }
    if (node.outputs.size() != static_cast<size_t>(info.outputs)) {
      return error("outputs: there are " + std::to_string(node.outputs.size()));
    }
    if (!attribute_count_fits(info.ints, node.ints.size()) ||
        !attribute_count_fits(info.floats, node.floats.size())) {
      return error("attributes: their number does not fit the operation");
    }
    for (const float value : node.floats) {
      if (std::isnan(value)) return error("attributes: NaN");
    }
    for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
      const int32_t index = node.inputs[slot];
      if (index == kAbsent && slot >= min_inputs && node.op != Op::k_concat) continue;
      if (!in_range(index)) return error("input " + std::to_string(slot) + ": no such tensor");
      if (!available_[static_cast<size_t>(index)]) {
        return error("input " + std::to_string(slot) + ": is used before it is computed");
      }
      const bool weight =
          slot == kConvWeight && (node.op == Op::k_conv || node.op == Op::k_fully_connected);
      if (tensor(index).dtype == DType::kF16 && !weight) {
        return error("input " + std::to_string(slot) +
                     ": f16 is for weights of conv and fully_connected");
      }
    }
    for (const int32_t index : node.outputs) {
      if (!in_range(index)) return error("output: no such tensor");
      if (available_[static_cast<size_t>(index)]) {
        return error("output: " + tensor(index).name + " has another producer");
      }
    }
    PYEDGE_RETURN_IF_ERROR(check_op(node));
    for (const int32_t index : node.outputs) available_[static_cast<size_t>(index)] = true;
    return {};
  }

  Status check_bounds(const Node& node) const {
    if (node.floats[0] > node.floats[1]) return error("bounds: the least exceeds the greatest");
    return {};
  }

  Status check_op(const Node& node) {
    if (tensor(node.inputs[0]).constant) return error("input 0: is a constant");
    switch (node.op) {
      case Op::k_conv:
      case Op::k_conv_transpose:
      case Op::k_fully_connected:
        return check_conv(node);
      case Op::k_prelu:
        PYEDGE_RETURN_IF_ERROR(check_vector(1, "slope", kAnyDim));
        return check_same_dtype(/*inputs=*/1);
      case Op::k_clip:
      case Op::k_div:
        PYEDGE_RETURN_IF_ERROR(check_bounds(node));
        return check_same_dtype();
      case Op::k_add:
      case Op::k_sub:
      case Op::k_mul:
        return check_bounds(node);
      case Op::k_max_pool:
      case Op::k_average_pool:
        return check_pool(node);
      case Op::k_resize:
        if (!within(node.ints[0], 0, 1) || !within(node.ints[1], 0, 3) ||
            !within(node.ints[2], 0, 3) || !within(node.ints[3], 0, kMaxDim) ||
            !within(node.ints[4], 0, kMaxDim) || (node.ints[3] == 0) != (node.ints[4] == 0)) {
          return error("mode, coordinates, rounding or size: unknown");
        }
        for (const float scale : node.floats) {
          if (!(scale > 0.0f && scale <= 1024.0f)) return error("scale: must lie in (0, 1024]");
        }
        return check_same_dtype();
      case Op::k_pad:
        if (!within(node.ints[0], 0, 2)) return error("mode: unknown");
        for (size_t i = 1; i < node.ints.size(); ++i) {
          if (!within(node.ints[i], 0, kMaxWindow)) return error("amounts: out of range");
        }
        if (!std::isfinite(node.floats[0])) return error("value: must be finite");
        return check_same_dtype();
      case Op::k_slice:
        if (node.ints[3] == 0 || node.ints[3] == INT32_MIN) return error("step: must not be zero");
        return check_same_quant();
      case Op::k_reshape:
      case Op::k_transpose:
        return check_same_quant();
      case Op::k_concat:
        for (const int32_t index : node.inputs) {
          if (tensor(index).constant) return error("inputs: a constant cannot be joined");
        }
        return check_same_dtype();
      case Op::k_reduce_l2:
      case Op::k_softmax:
        return check_dtypes(DType::kF32, DType::kF32);
      case Op::k_l2_normalize:
        if (!(node.floats[0] >= 0.0f)) return error("epsilon: must not be negative");
        return check_dtypes(DType::kF32, DType::kF32);
      case Op::k_quantize:
        return check_dtypes(DType::kF32, DType::kI8);
      case Op::k_dequantize:
        return check_dtypes(DType::kI8, DType::kF32);
      case Op::k_sigmoid:
      case Op::k_hard_sigmoid:
      case Op::k_hard_swish:
      case Op::k_tanh:
      case Op::k_reduce_mean:
      case Op::k_reduce_sum:
        return check_same_dtype();
    }
    return {};
  }

  Status check_conv(const Node& node) {
    const bool connected = node.op == Op::k_fully_connected;
    const Tensor& x = tensor(node.inputs[kConvX]);
    const Tensor& w = tensor(node.inputs[kConvWeight]);
    const Tensor& y = tensor(node.outputs[0]);
    if (!w.constant || w.shape.rank != (connected ? 2 : 4)) {
      return error(std::string("weight: must be a constant of rank ") + (connected ? "2" : "4"));
    }
    PYEDGE_RETURN_IF_ERROR(check_bounds(node));
    const int32_t out_c = w.shape[0];
    for (const int slot : {kConvBias, kConvWeightScale, kConvSlope}) {
      static constexpr const char* kNames[] = {"", "", "bias", "weight_scale", "slope"};
      PYEDGE_RETURN_IF_ERROR(check_vector(slot, kNames[slot], out_c));
    }
    if (x.dtype != (w.dtype == DType::kF16 ? DType::kF32 : w.dtype)) {
      return error("weight: must have the dtype of the input, or f16 for f32");
    }
    if (x.dtype == DType::kF32 && y.dtype != DType::kF32) return error("output: must be f32");
    if (x.dtype == DType::kI8) {
      if (!has_input(kConvWeightScale)) return error("weight_scale: is missing");
      size_t accumulations = 1;
      for (int axis = 1; axis < w.shape.rank; ++axis) {
        accumulations *= static_cast<size_t>(w.shape[axis]);
      }
      if (accumulations > kMaxAccumulations) {
        return error("weight: more than 65536 products in a sum");
      }
      if (std::memchr(w.data, INT8_MIN, w.shape.elements()) != nullptr) {
        return error("weight: must lie in -127..127");
      }
    }
    if (has_input(kConvResidual)) {
      const Tensor& r = tensor(node.inputs[kConvResidual]);
      if (r.dtype != y.dtype || r.constant) {
        return error("residual: must be an activation of the output's dtype");
      }
    }
    if (node.op != Op::k_conv_transpose) PYEDGE_RETURN_IF_ERROR(check_activation(node));
    if (connected) return {};
    const size_t groups_at = node.op == Op::k_conv ? 8 : 10;
    for (size_t i = 0; i < groups_at; ++i) {
      if (!within(node.ints[i], i < 4 ? 1 : 0, kMaxWindow)) {
        return error("strides, dilations or pads: out of range");
      }
    }
    if (w.shape[1] > kMaxWindow || w.shape[2] > kMaxWindow)
      return error("weight: window too large");
    const int32_t groups = node.ints[groups_at];
    if (groups < 1 || out_c % groups != 0) return error("groups: must divide the output channels");
    return {};
  }

  Status check_activation(const Node& node) const {
    const size_t at = conv_activation_at(node.op);
    const int32_t activation = node.ints.size() > at ? node.ints[at] : 0;
    if (!within(activation, 0, kActivations - 1)) return error("activation: unknown");
    if (activation != 0 && (has_input(kConvSlope) || has_input(kConvResidual))) {
      return error("activation: does not go with a slope or a residual");
    }
    return {};
  }

  Status check_pool(const Node& node) {
    const auto& a = node.ints;
    if (!within(a[0], 0, 1) || !within(a[9], 0, 1) || (a.size() > 10 && !within(a[10], 0, 1))) {
      return error("flags: must be 0 or 1");
    }
    for (size_t i = 1; i < 5; ++i) {
      if (!within(a[i], a[0] == 1 ? 0 : 1, kMaxWindow)) return error("window: out of range");
    }
    for (size_t i = 5; i < 9; ++i) {
      // A window that lies in the padding alone would have no element.
      if (!within(a[i], 0, a[0] == 1 ? 0 : (i % 2 == 1 ? a[1] : a[2]) - 1)) {
        return error("pads: must be smaller than the kernel");
      }
    }
    return check_same_dtype();
  }

  Status error(const std::string& message) const {
    return invalid_model(std::string("node ") + node_->name + " (" +
                         find_op(static_cast<uint32_t>(node_->op))->name + ") " + message);
  }
  static bool within(int32_t value, int32_t least, int32_t greatest) {
    return value >= least && value <= greatest;
  }
  bool has_input(size_t slot) const {
    return slot < node_->inputs.size() && node_->inputs[slot] != kAbsent;
  }

  // A constant f32 vector of that length, or an empty slot.
  Status check_vector(int slot, const char* name, int32_t length) const {
    if (!has_input(static_cast<size_t>(slot))) return {};
    const Tensor& t = tensor(node_->inputs[static_cast<size_t>(slot)]);
    if (!t.constant || t.dtype != DType::kF32 || t.shape.rank != 1 ||
        (length != kAnyDim && t.shape[0] != length)) {
      return error(std::string(name) + ": must be a constant f32 vector, one for each channel");
    }
    return {};
  }

  Status check_dtypes(DType in, DType out) const {
    if (tensor(node_->inputs[0]).dtype != in || tensor(node_->outputs[0]).dtype != out) {
      return error("dtype: of input or output is not what the operation takes");
    }
    return {};
  }

  // The output and the first inputs (all by default) have one dtype; i8 constants carry a scale.
  Status check_same_dtype(size_t inputs = SIZE_MAX) const {
    for (size_t slot = 0; slot < node_->inputs.size() && slot < inputs; ++slot) {
      const Tensor& t = tensor(node_->inputs[slot]);
      if (t.dtype != tensor(node_->outputs[0]).dtype) {
        return error("dtype: inputs and output must have one");
      }
      if (t.dtype == DType::kI8 && t.quant.scale == 0.0f) return error("scale: is missing");
    }
    return {};
  }

  Status check_same_quant() const {
    PYEDGE_RETURN_IF_ERROR(check_same_dtype());
    const Tensor& x = tensor(node_->inputs[0]);
    const Tensor& y = tensor(node_->outputs[0]);
    if (x.dtype == DType::kI8 &&
        (x.quant.scale != y.quant.scale || x.quant.zero_point != y.quant.zero_point)) {
      return error("scale: input and output must have the same");
    }
    return {};
  }

  const Graph& graph_;
  const Node* node_ = nullptr;
  std::vector<bool> available_;
};

}  // namespace

Status check_shape(const Shape& shape, const std::string& field) {
  size_t elements = 1;
  for (int axis = 0; axis < shape.rank; ++axis) {
    if (shape[axis] < 1 || shape[axis] > kMaxDim) {
      return invalid_model(field + ": the shape " + shape.to_string() +
                           " has a dimension that is not in 1.." + std::to_string(kMaxDim));
    }
    elements *= static_cast<size_t>(shape[axis]);
    if (elements > kMaxElements) {
      return invalid_model(field + ": the shape " + shape.to_string() + " has too many elements");
    }
  }
  return {};
}

Status validate(const Graph& graph) { return Validator(graph).run(); }

}  // namespace pyedge
