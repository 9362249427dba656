// Random nodes of every operation, of odd sizes and with extreme values: every kernel gives the
// bytes of the reference, with one thread and with three, and writes nothing behind its output.
// INT8 convolutions have a test of their own.
//
// random_ops_test [COUNT [FIRST]]: node i of an endless list is the same on every machine.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "base/buffer.h"
#include "check.h"
#include "graph/shapes.h"
#include "kernels/kernel.h"
#include "random.h"
#include "random_nodes.h"
#include "runtime/launch.h"

namespace pyedge {
namespace {

constexpr double kMostMacs = 400000;
constexpr size_t kGuard = 256;  // bytes behind the output
constexpr uint8_t kGuardByte = 0xa5;

// The tensors of a node, in buffers of their own with slack behind, as the executor gives them.
class Case {
 public:
  // Draws again until the node has an output of a reasonable size.
  explicit Case(Random& random) {
    const Row row = draw_row(random);
    do n_ = draw(random, row);
    while (!infer());
    extremes_ = random.one_in(4);
    add_residual(random);
    for (const Input& input : n_.inputs) views_.push_back(make(input, random));
    views_.push_back(view(n_.inputs[0]));
    TensorView& y = views_.back();
    y.dtype = n_.out, y.shape = shape_, y.quant = n_.quant, y.data = nullptr;
  }

  const Drawn& node() const { return n_; }
  const Shape& shape() const { return shape_; }

  // The arguments with `output` in the place of the output's data.
  OpArgs args(void* output) {
    views_.back().data = output;
    const int inputs = static_cast<int>(views_.size()) - 1;
    return {n_.op,
            n_.ints.data(),
            static_cast<int>(n_.ints.size()),
            n_.floats.data(),
            static_cast<int>(n_.floats.size()),
            views_.data(),
            inputs,
            views_.data() + inputs,
            1};
  }
  size_t output_bytes() const { return shape_.elements() * dtype_bytes(n_.out); }

 private:
  static TensorView view(const Input& input) {
    TensorView v;
    for (const int32_t dim : input.dims) v.shape[v.shape.rank++] = dim;
    v.dtype = input.dtype, v.quant = input.quant, v.present = input.present;
    return v;
  }

  // False where the node does not fit together or is too large for a quick test.
  bool infer() {
    Graph graph;
    Node& node = graph.nodes.emplace_back();
    node.op = n_.op, node.ints = n_.ints, node.floats = n_.floats;
    for (const Input& input : n_.inputs) {
      node.inputs.push_back(input.present ? static_cast<int32_t>(graph.tensors.size()) : kAbsent);
      if (!input.present) continue;
      Tensor& tensor = graph.tensors.emplace_back();
      tensor.constant = true, tensor.dtype = input.dtype, tensor.shape = view(input).shape;
    }
    node.outputs = {static_cast<int32_t>(graph.tensors.size())};
    graph.tensors.emplace_back();
    std::vector<Shape> shapes;
    if (!infer_shapes(graph, {}, &shapes).ok()) return false;
    shape_ = shapes.back();
    return shape_.elements() > 0 && static_cast<int64_t>(shape_.elements()) <= 4 * kMostElements &&
           count_macs(node, shapes) <= kMostMacs;
  }

  void add_residual(Random& random) {
    if ((n_.op != Op::k_conv && n_.op != Op::k_fully_connected) || random.one_in(2)) return;
    Dims dims;
    for (int axis = 0; axis < shape_.rank; ++axis) dims.push_back(shape_[axis]);
    n_.add(dims, DType::kF32);
  }

  TensorView make(const Input& input, Random& random) {
    TensorView v = view(input);
    buffers_.emplace_back();
    const size_t bytes = v.shape.elements() * dtype_bytes(v.dtype);
    CHECK(buffers_.back().allocate(bytes + kSlack));
    v.data = buffers_.back().data();
    std::memset(v.mutable_as<uint8_t>() + bytes, 0x7f, kSlack);  // what lies there must not matter
    for (size_t i = 0; i < v.shape.elements(); ++i) {
      if (v.dtype == DType::kF32) {
        v.mutable_as<float>()[i] = number(input, random);
      } else {
        const int32_t lowest = input.quant.scale > 0.0f ? -128 : -127;  // of a weight
        const int32_t end = random.one_in(2) ? lowest : 127;
        v.mutable_as<int8_t>()[i] =
            static_cast<int8_t>(extremes_ ? end : random.range(lowest, 127));
      }
    }
    return v;
  }

  float number(const Input& input, Random& random) const {
    constexpr float kFinite[] = {0.0f, -0.0f, 1e-40f, -1e-45f, 3e38f, -3e38f, 0.5f, -88.0f};
    constexpr float kEndless[] = {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()};
    const bool layer = n_.op == Op::k_conv || n_.op == Op::k_fully_connected;
    if (!extremes_ || !random.one_in(layer ? 30 : 8) || input.low > 0.0f) {
      return random.real(input.low, input.high);
    }
    return input.finite || random.one_in(2) ? random.pick(kFinite) : random.pick(kEndless);
  }

  Drawn n_;
  bool extremes_ = false;
  Shape shape_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<TensorView> views_;
};

std::vector<uint8_t> run(const Kernel& kernel, Case* node, ThreadPool* pool) {
  const size_t bytes = node->output_bytes();
  AlignedBuffer output, prepared, scratch;
  CHECK(output.allocate(bytes + kGuard));
  std::memset(output.data(), kGuardByte, bytes + kGuard);
  const OpArgs args = node->args(output.data());
  if (kernel.prepare) {
    CHECK(prepared.allocate(kernel.prepared_bytes(args)));
    kernel.prepare(args, prepared.data());
  }
  const size_t stride = align_up(kernel.scratch_bytes ? kernel.scratch_bytes(args) : 0);
  CHECK(scratch.allocate(stride * static_cast<size_t>(pool->threads())));
  launch(pool, {&kernel, &args, prepared.data(), scratch.data(), stride}, kernel.tasks(args));
  const uint8_t* guard = output.data() + bytes;
  CHECK(std::all_of(guard, guard + kGuard, [](uint8_t byte) { return byte == kGuardByte; }));
  // The sign of a zero is not promised where an f32 layer ends in a clamp; nor are the bits of a
  // NaN, which follow the order in which a compiler writes the operands of a sum.
  if (node->node().out == DType::kF32) {
    const bool layer = kernel.op == Op::k_conv || kernel.op == Op::k_conv_transpose;
    float* y = reinterpret_cast<float*>(output.data());
    for (size_t i = 0; i < bytes / sizeof(float); ++i) {
      if (layer) y[i] += 0.0f;
      if (std::isnan(y[i])) y[i] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  return {output.data(), output.data() + bytes};
}

void print(uint64_t index, const Drawn& n, const Kernel& kernel, size_t at, size_t bytes) {
  std::printf("node %" PRIu64 ": %s differs at byte %zu of %zu; inputs", index, kernel.name, at,
              bytes);
  for (const Input& input : n.inputs) {
    std::printf(" [");
    for (const int32_t dim : input.dims) std::printf(" %d", dim);
    std::printf(input.present ? " ]" : " ] (absent)");
  }
  std::printf("; attributes");
  for (const int32_t value : n.ints) std::printf(" %d", value);
  for (const float value : n.floats) std::printf(" %g", static_cast<double>(value));
  std::printf("\n");
}

// Near the reference instead of equal: tests/test_kernels_winograd_f32.py.
bool is_winograd(const Kernel& kernel) { return std::strstr(kernel.name, "_f32_winograd"); }

class RandomOps {
 public:
  RandomOps() : counts_(table().size()) {}

  // False where a kernel gave anything but the bytes of the reference.
  bool check(uint64_t index) {
    Random random(index * 0x2545f4914f6cdd1du);
    Case node(random);
    const OpArgs args = node.args(nullptr);
    const Op op = args.op == Op::k_fully_connected ? Op::k_conv : args.op;
    const auto takes = [&](const Kernel& kernel) {
      return kernel.op == op && !is_winograd(kernel) && runs_on(kernel.isa, cpu_features()) &&
             kernel.accepts(args);
    };
    std::vector<uint8_t> want;
    for (const Kernel* kernel : table()) {
      if (kernel->isa == Isa::reference && takes(*kernel)) want = run(*kernel, &node, &one_);
    }
    CHECK(!want.empty());
    bool same = true;
    for (size_t k = 0; k < table().size(); ++k) {
      const Kernel& kernel = *table()[k];
      if (!takes(kernel)) continue;
      ++counts_[k];
      for (ThreadPool* pool : {&one_, &three_}) {
        const std::vector<uint8_t> got = run(kernel, &node, pool);
        const auto at = std::mismatch(got.begin(), got.end(), want.begin()).first - got.begin();
        if (static_cast<size_t>(at) == got.size()) continue;
        print(index, node.node(), kernel, static_cast<size_t>(at), got.size());
        same = false;
      }
    }
    return same;
  }

  // False where a kernel that runs here took none of the nodes.
  bool summarize() const {
    bool reached = true;
    for (size_t k = 0; k < table().size(); ++k) {
      const Kernel& kernel = *table()[k];
      if (kernel.op == Op::k_conv && std::strstr(kernel.name, "_i8_")) continue;
      if (is_winograd(kernel)) continue;
      if (!runs_on(kernel.isa, cpu_features())) {
        std::printf("%-32s NOT TESTED: this CPU has no %s\n", kernel.name,
                    isa_table()[static_cast<size_t>(kernel.isa)].name);
        continue;
      }
      std::printf("%-32s %" PRIu64 " nodes\n", kernel.name, counts_[k]);
      reached = reached && counts_[k] > 0;
    }
    return reached;
  }

 private:
  static const std::vector<const Kernel*>& table() {
    static const std::vector<const Kernel*> all = [] {
      size_t count = 0;
      const Kernel* const* first = kernels(&count);
      return std::vector<const Kernel*>(first, first + count);
    }();
    return all;
  }

  std::vector<uint64_t> counts_;
  ThreadPool one_{1}, three_{3};
};

}  // namespace
}  // namespace pyedge

int main(int argc, char** argv) {
  return pyedge::check_items<pyedge::RandomOps>(argc, argv, 2000, "nodes");
}
