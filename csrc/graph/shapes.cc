#include "graph/shapes.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "graph/validate.h"
#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

// One node's shapes. Sizes are computed in 64 bits and checked once at the end, in `finish`.
class Inference {
 public:
  Inference(const Node& node, const std::vector<Shape>& shapes)
      : node_(node), shapes_(shapes), x_(input(0)) {}

  Status run(Shape* y) {
    PYEDGE_RETURN_IF_ERROR(dispatch());
    return finish(y);
  }

 private:
  const Shape& input(size_t slot) const { return shapes_[static_cast<size_t>(node_.inputs[slot])]; }
  bool has_input(size_t slot) const {
    return slot < node_.inputs.size() && node_.inputs[slot] != kAbsent;
  }
  Status error(const std::string& message) const {
    return invalid_argument("node " + node_.name + " (" +
                            find_op(static_cast<uint32_t>(node_.op))->name + "): " + message);
  }

  void copy_input() {
    rank_ = x_.rank;
    for (int axis = 0; axis < rank_; ++axis) dims_[axis] = x_[axis];
  }

  Status finish(Shape* y) const {
    Shape shape;
    shape.rank = rank_;
    for (int axis = 0; axis < rank_; ++axis) {
      if (dims_[axis] < 1 || dims_[axis] > kMaxDim) {
        return error("an input of " + x_.to_string() + " gives an output axis of size " +
                     std::to_string(dims_[axis]));
      }
      shape[axis] = static_cast<int32_t>(dims_[axis]);
    }
    if (const Status status = check_shape(shape, "output"); !status.ok()) {
      return error(status.message());
    }
    if (has_input(kConvResidual) && node_.op != Op::k_concat && input(kConvResidual) != shape) {
      return error("the residual " + input(kConvResidual).to_string() +
                   " does not fit the output " + shape.to_string());
    }
    *y = shape;
    return {};
  }

  Status check_axis(int32_t axis) const {
    if (axis >= 0 && axis < x_.rank) return {};
    return error("axis " + std::to_string(axis) + " of a tensor of rank " +
                 std::to_string(x_.rank));
  }

  Status dispatch() {
    switch (node_.op) {
      case Op::k_conv:
        return conv();
      case Op::k_conv_transpose:
        return conv_transpose();
      case Op::k_fully_connected:
        return fully_connected();
      case Op::k_prelu:
        copy_input();
        if (x_.rank < 1 || input(1)[0] != x_[x_.rank - 1]) return error("the slope does not fit");
        return {};
      case Op::k_add:
      case Op::k_sub:
      case Op::k_mul:
      case Op::k_div:
        return binary();
      case Op::k_max_pool:
      case Op::k_average_pool:
        return pool();
      case Op::k_concat:
        return concat();
      case Op::k_slice:
        return slice();
      case Op::k_resize:
        return resize();
      case Op::k_pad:
        return pad();
      case Op::k_reshape:
        return reshape();
      case Op::k_transpose:
        return transpose();
      case Op::k_reduce_mean:
      case Op::k_reduce_sum:
      case Op::k_reduce_l2:
        return reduce();
      case Op::k_softmax:
      case Op::k_l2_normalize:
        copy_input();
        return check_axis(node_.ints[0]);
      case Op::k_clip:
      case Op::k_sigmoid:
      case Op::k_hard_sigmoid:
      case Op::k_hard_swish:
      case Op::k_tanh:
      case Op::k_quantize:
      case Op::k_dequantize:
        copy_input();
        return {};
    }
    return {};
  }

  Status check_image() const {
    if (x_.rank == 4) return {};
    return error("needs an input of rank 4, got " + x_.to_string());
  }

  Status check_channels(int32_t groups, int32_t group_in_c) const {
    if (int64_t{groups} * group_in_c == x_[3]) return {};
    return error("the input has " + std::to_string(x_[3]) + " channels, the weight takes " +
                 std::to_string(int64_t{groups} * group_in_c));
  }

  static int64_t window(int64_t kernel, int64_t dilation) { return dilation * (kernel - 1) + 1; }

  Status conv() {
    PYEDGE_RETURN_IF_ERROR(check_image());
    const Shape& w = input(kConvWeight);
    const auto& a = node_.ints;
    PYEDGE_RETURN_IF_ERROR(check_channels(a[8], w[3]));
    rank_ = 4;
    dims_[0] = x_[0];
    dims_[3] = w[0];
    for (int i = 0; i < 2; ++i) {
      const auto k = static_cast<size_t>(i);
      const int64_t room = int64_t{x_[1 + i]} + a[4 + k] + a[6 + k] - window(w[1 + i], a[2 + k]);
      dims_[1 + i] = room < 0 ? 0 : room / a[k] + 1;
    }
    return {};
  }

  Status conv_transpose() {
    PYEDGE_RETURN_IF_ERROR(check_image());
    const Shape& w = input(kConvWeight);
    const auto& a = node_.ints;
    PYEDGE_RETURN_IF_ERROR(check_channels(a[10], w[3]));
    rank_ = 4;
    dims_[0] = x_[0];
    dims_[3] = w[0];
    for (int i = 0; i < 2; ++i) {
      const auto k = static_cast<size_t>(i);
      dims_[1 + i] = (int64_t{x_[1 + i]} - 1) * a[k] - a[4 + k] - a[6 + k] +
                     window(w[1 + i], a[2 + k]) + a[8 + k];
    }
    return {};
  }

  Status fully_connected() {
    const Shape& w = input(kConvWeight);
    if (x_.rank < 2 || x_[x_.rank - 1] != w[1]) {
      return error("the weight takes " + std::to_string(w[1]) + " features, the input is " +
                   x_.to_string());
    }
    copy_input();
    dims_[rank_ - 1] = w[0];
    return {};
  }

  Status binary() {
    const Shape& b = input(1);
    rank_ = std::max(x_.rank, b.rank);
    for (int axis = 0; axis < rank_; ++axis) {
      const int from_a = axis - (rank_ - x_.rank), from_b = axis - (rank_ - b.rank);
      const int32_t p = from_a < 0 ? 1 : x_[from_a], q = from_b < 0 ? 1 : b[from_b];
      if (p != q && p != 1 && q != 1) {
        return error(x_.to_string() + " and " + b.to_string() + " do not broadcast");
      }
      dims_[axis] = std::max(p, q);
    }
    return {};
  }

  Status pool() {
    PYEDGE_RETURN_IF_ERROR(check_image());
    const auto& a = node_.ints;
    copy_input();
    for (int i = 0; i < 2; ++i) {
      const auto k = static_cast<size_t>(i);
      if (a[0] == 1) {
        dims_[1 + i] = 1;
        continue;
      }
      const int64_t size = x_[1 + i], stride = a[3 + k], before = a[5 + k];
      const int64_t room = size + before + a[7 + k] - a[1 + k];
      if (room < 0) {
        dims_[1 + i] = 0;
        continue;
      }
      int64_t out = room / stride + 1;
      if (a[9] == 1 && room % stride != 0 && out * stride < size + before) ++out;
      dims_[1 + i] = out;
    }
    return {};
  }

  Status concat() {
    const int32_t axis = node_.ints[0];
    PYEDGE_RETURN_IF_ERROR(check_axis(axis));
    copy_input();
    for (size_t slot = 1; slot < node_.inputs.size(); ++slot) {
      const Shape& other = input(slot);
      bool fits = other.rank == rank_;
      for (int k = 0; fits && k < rank_; ++k) fits = k == axis || other[k] == x_[k];
      if (!fits) return error(x_.to_string() + " and " + other.to_string() + " cannot be joined");
      dims_[axis] += other[axis];
    }
    return {};
  }

  Status slice() {
    const auto& a = node_.ints;
    PYEDGE_RETURN_IF_ERROR(check_axis(a[0]));
    copy_input();
    dims_[a[0]] = slice_range(x_[a[0]], a[1], a[2], a[3]).count;
    return {};
  }

  Status resize() {
    PYEDGE_RETURN_IF_ERROR(check_image());
    copy_input();
    for (int i = 0; i < 2; ++i) {
      const auto k = static_cast<size_t>(i);
      dims_[1 + i] =
          node_.ints[3 + k] > 0
              ? node_.ints[3 + k]
              : static_cast<int64_t>(std::floor(static_cast<double>(x_[1 + i]) * node_.floats[k]));
    }
    return {};
  }

  Status pad() {
    copy_input();
    if (node_.ints.size() != 1 + 2 * static_cast<size_t>(rank_)) {
      return error("the amounts do not fit an input of " + x_.to_string());
    }
    for (int axis = 0; axis < rank_; ++axis) {
      const size_t at = 1 + 2 * static_cast<size_t>(axis);
      const int32_t before = node_.ints[at], after = node_.ints[at + 1];
      if (node_.ints[0] == 1 && std::max(before, after) >= x_[axis]) {
        return error("reflection needs more elements than " + x_.to_string() + " has");
      }
      dims_[axis] += int64_t{before} + after;
    }
    return {};
  }

  Status reshape() {
    rank_ = static_cast<int>(node_.ints.size());
    if (rank_ > kMaxRank) return error("more than six dimensions");
    int64_t known = 1;
    int inferred = -1;
    for (int axis = 0; axis < rank_; ++axis) {
      int64_t dim = node_.ints[static_cast<size_t>(axis)];
      if (dim == 0 && axis < x_.rank) dim = x_[axis];
      if (dim == -1 && inferred < 0) {
        inferred = axis;
        continue;
      }
      if (dim < 1 || dim > kMaxDim) return error("dims: not a shape");
      dims_[axis] = dim;
      known *= dim;
      if (known > static_cast<int64_t>(kMaxElements)) return error("dims: too many elements");
    }
    const auto elements = static_cast<int64_t>(x_.elements());
    if (inferred >= 0) {
      dims_[inferred] = elements / known;
      known *= dims_[inferred];
    }
    if (known != elements) return error(x_.to_string() + " has another number of elements");
    return {};
  }

  Status transpose() {
    rank_ = x_.rank;
    bool seen[kMaxRank] = {};
    if (node_.ints.size() != static_cast<size_t>(rank_)) return error("perm does not fit the rank");
    for (int axis = 0; axis < rank_; ++axis) {
      const int32_t from = node_.ints[static_cast<size_t>(axis)];
      if (from < 0 || from >= rank_ || seen[from]) return error("perm is not a permutation");
      seen[from] = true;
      dims_[axis] = x_[from];
    }
    return {};
  }

  Status reduce() {
    bool reduced[kMaxRank] = {};
    for (size_t i = 1; i < node_.ints.size(); ++i) {
      PYEDGE_RETURN_IF_ERROR(check_axis(node_.ints[i]));
      if (reduced[node_.ints[i]] || (i > 1 && node_.ints[i] < node_.ints[i - 1])) {
        return error("axes must ascend");
      }
      reduced[node_.ints[i]] = true;
    }
    for (int axis = 0; axis < x_.rank; ++axis) {
      if (!reduced[axis]) {
        dims_[rank_++] = x_[axis];
      } else if (node_.ints[0] != 0) {
        dims_[rank_++] = 1;
      }
    }
    return {};
  }

  const Node& node_;
  const std::vector<Shape>& shapes_;
  const Shape& x_;
  int rank_ = 0;
  int64_t dims_[kMaxRank] = {};
};

}  // namespace

SliceRange slice_range(int32_t dim, int32_t start, int32_t stop, int32_t step) {
  const int64_t n = dim, s = step;
  const auto clip = [&](int64_t at) {
    at = at < 0 ? at + n : at;
    return s > 0 ? std::clamp<int64_t>(at, 0, n) : std::clamp<int64_t>(at, -1, n - 1);
  };
  const int64_t first = clip(start), last = clip(stop);
  const int64_t count = s > 0 ? (last - first + s - 1) / s : (first - last - s - 1) / -s;
  return {static_cast<int32_t>(first), static_cast<int32_t>(std::max<int64_t>(count, 0))};
}

Status infer_shapes(const Graph& graph, const std::vector<Shape>& inputs,
                    std::vector<Shape>* shapes) {
  shapes->assign(graph.tensors.size(), Shape{});
  for (size_t i = 0; i < graph.tensors.size(); ++i) {
    if (graph.tensors[i].constant) (*shapes)[i] = graph.tensors[i].shape;
  }
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const Tensor& t = graph.tensors[static_cast<size_t>(graph.inputs[i])];
    bool fits = inputs[i].rank == t.shape.rank && check_shape(inputs[i], t.name).ok();
    for (int axis = 0; fits && axis < t.shape.rank; ++axis) {
      fits = t.shape[axis] == kAnyDim || t.shape[axis] == inputs[i][axis];
    }
    if (!fits) {
      return invalid_argument("input " + t.name + ": the model takes " + t.shape.to_string() +
                              ", got " + inputs[i].to_string());
    }
    (*shapes)[static_cast<size_t>(graph.inputs[i])] = inputs[i];
  }
  for (const Node& node : graph.nodes) {
    Shape y;
    PYEDGE_RETURN_IF_ERROR(Inference(node, *shapes).run(&y));
    (*shapes)[static_cast<size_t>(node.outputs[0])] = y;
  }
  return {};
}

double count_macs(const Node& node, const std::vector<Shape>& shapes) {
  if (node.op != Op::k_conv && node.op != Op::k_conv_transpose &&
      node.op != Op::k_fully_connected) {
    return 0.0;
  }
  const Shape& w = shapes[static_cast<size_t>(node.inputs[kConvWeight])];
  // Each output of a convolution sums a weight row; each input of a transposed one spreads it.
  const size_t sites =
      node.op == Op::k_conv_transpose
          ? shapes[static_cast<size_t>(node.inputs[0])].elements() /
                static_cast<size_t>(w[3] * node.ints[10])
          : shapes[static_cast<size_t>(node.outputs[0])].elements() / static_cast<size_t>(w[0]);
  return static_cast<double>(sites) * static_cast<double>(w.elements());
}

}  // namespace pyedge
