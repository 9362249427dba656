// Single kernels for tests and benchmarks: arguments are trusted, as a graph's are after
// validation.
#include <cstring>
#include <memory>
#include <optional>

#include "base/buffer.h"
#include "graph/shapes.h"
#include "kernels/kernel.h"
#include "python/bindings.h"
#include "runtime/launch.h"

namespace py = pybind11;

namespace pyedge {
namespace {

using QuantPair = std::pair<float, int32_t>;

py::list kernel_names(const std::string& op) {
  size_t count = 0;
  const Kernel* const* all = kernels(&count);
  py::list names;
  for (size_t i = 0; i < count; ++i) {
    if (find_op(static_cast<uint32_t>(all[i]->op))->name != op) continue;
    names.append(py::make_tuple(all[i]->name, isa_table()[static_cast<size_t>(all[i]->isa)].name,
                                runs_on(all[i]->isa, cpu_features())));
  }
  return names;
}

// One node with buffers of its own, aligned and with slack, as the executor gives them.
struct Case {
  Graph graph;
  std::vector<AlignedBuffer> buffers;
  std::vector<TensorView> views;
  OpArgs args;

  const TensorView& output() const { return *args.outputs; }
};

Op op_by_name(const std::string& name) {
  for (const OpInfo& info : op_table()) {
    if (name == info.name) return info.op;
  }
  raise_if_error(invalid_argument("op: there is no " + name));
  return {};
}

// The output shape of one node, by the rules of the executor; None for an empty input slot.
py::tuple infer_shape(const std::string& op, const std::vector<int32_t>& ints,
                      const std::vector<float>& floats,
                      const std::vector<std::optional<std::vector<int32_t>>>& inputs) {
  Graph graph;
  Node& node = graph.nodes.emplace_back();
  node.op = op_by_name(op);
  node.name = op;
  node.ints = ints, node.floats = floats;
  for (const auto& dims : inputs) {
    node.inputs.push_back(dims ? static_cast<int32_t>(graph.tensors.size()) : kAbsent);
    if (!dims) continue;
    Tensor& tensor = graph.tensors.emplace_back();
    tensor.constant = true;  // of a known shape; nothing asks for the data
    if (dims->size() > kMaxRank) raise_if_error(invalid_argument("shape: more than six axes"));
    for (const int32_t dim : *dims) tensor.shape[tensor.shape.rank++] = dim;
  }
  node.outputs = {static_cast<int32_t>(graph.tensors.size())};
  graph.tensors.emplace_back();
  std::vector<Shape> shapes;
  raise_if_error(infer_shapes(graph, {}, &shapes));
  return shape_tuple(shapes.back());
}

void add_input(const py::object& value, const QuantPair& quant, Case* c) {
  Node& node = c->graph.nodes[0];
  TensorView view;
  c->buffers.emplace_back();
  if (value.is_none()) {
    node.inputs.push_back(kAbsent);
    c->views.push_back(view);
    return;
  }
  const auto array = py::array::ensure(value, py::array::c_style);
  const bool is_i8 = py::isinstance<py::array_t<int8_t>>(array);
  const bool is_f16 = array.dtype().is(py::dtype("float16")) && node.inputs.size() == 1;
  if (!is_i8 && !is_f16 && !py::isinstance<py::array_t<float>>(array)) {
    raise_if_error(invalid_argument("inputs: must be float32 or int8, a weight may be float16"));
  }
  Tensor tensor;
  tensor.dtype = is_i8 ? DType::kI8 : is_f16 ? DType::kF16 : DType::kF32;
  tensor.shape = array_shape(array, "input");
  tensor.quant = {quant.first, quant.second};
  tensor.constant = true;
  if (!c->buffers.back().allocate(static_cast<size_t>(array.nbytes()) + kSlack)) {
    raise_if_error({StatusCode::kOutOfMemory, "no memory"});
  }
  // Whatever lies behind a tensor must not matter.
  std::memset(c->buffers.back().data(), 0x7f, c->buffers.back().size());
  std::memcpy(c->buffers.back().data(), array.data(), static_cast<size_t>(array.nbytes()));
  view.data = c->buffers.back().data();
  view.dtype = tensor.dtype, view.shape = tensor.shape, view.quant = tensor.quant;
  view.present = true;
  node.inputs.push_back(static_cast<int32_t>(c->graph.tensors.size()));
  c->graph.tensors.push_back(tensor);
  c->views.push_back(view);
}

const Kernel* find_kernel(const std::string& name) {
  size_t count = 0;
  const Kernel* const* all = kernels(&count);
  for (size_t i = 0; i < count; ++i) {
    if (all[i]->name == name) return all[i];
  }
  return nullptr;
}

std::unique_ptr<Case> make_case(const std::string& op, const std::vector<int32_t>& ints,
                                const std::vector<float>& floats,
                                const std::vector<py::object>& inputs,
                                const std::vector<QuantPair>& input_quant,
                                const std::string& out_dtype, const QuantPair& out_quant) {
  auto made = std::make_unique<Case>();
  Case& c = *made;
  Node& node = c.graph.nodes.emplace_back();
  node.op = op_by_name(op);
  node.name = op;
  node.ints = ints, node.floats = floats;
  for (size_t i = 0; i < inputs.size(); ++i) {
    add_input(inputs[i], i < input_quant.size() ? input_quant[i] : QuantPair{}, &c);
  }
  node.outputs = {static_cast<int32_t>(c.graph.tensors.size())};
  c.graph.tensors.emplace_back();
  std::vector<Shape> shapes;
  raise_if_error(infer_shapes(c.graph, {}, &shapes));

  TensorView y;
  y.dtype = out_dtype == "i8" ? DType::kI8 : DType::kF32;
  y.shape = shapes.back(), y.quant = {out_quant.first, out_quant.second}, y.present = true;
  AlignedBuffer& out = c.buffers.emplace_back();
  if (!out.allocate(y.shape.elements() * dtype_bytes(y.dtype) + kSlack)) {
    raise_if_error({StatusCode::kOutOfMemory, "no memory"});
  }
  y.data = out.data();
  c.views.push_back(y);
  c.args = {node.op,
            node.ints.data(),
            static_cast<int>(node.ints.size()),
            node.floats.data(),
            static_cast<int>(node.floats.size()),
            c.views.data(),
            static_cast<int>(inputs.size()),
            c.views.data() + inputs.size(),
            1};
  return made;
}

// A kernel on a case, its constants packed.
class Runner {
 public:
  Runner(const Case& c, const Kernel* kernel, int threads)
      : pool_(threads), call_{kernel, &c.args, nullptr, nullptr, 0} {
    bool memory = true;
    if (kernel->prepared_bytes != nullptr) {
      memory = prepared_.allocate(kernel->prepared_bytes(c.args));
      if (memory) kernel->prepare(c.args, prepared_.data());
      call_.prepared = prepared_.data();
    }
    if (kernel->scratch_bytes != nullptr) {
      call_.scratch_stride = align_up(kernel->scratch_bytes(c.args));
      const size_t bytes = call_.scratch_stride * static_cast<size_t>(threads);
      memory = memory && scratch_.allocate(bytes);
      call_.scratch = scratch_.data();
    }
    if (!memory) raise_if_error({StatusCode::kOutOfMemory, "no memory"});
  }

  const Kernel& kernel() const { return *call_.kernel; }

  void run(int repeats) {
    const py::gil_scoped_release unlocked;
    const size_t tasks = call_.kernel->tasks(*call_.args);
    for (int i = 0; i < repeats; ++i) launch(&pool_, call_, tasks);
  }

 private:
  AlignedBuffer prepared_, scratch_;
  ThreadPool pool_;
  Launch call_;
};

// Null where no kernel (or not the named one) takes the case on this CPU.
std::unique_ptr<Runner> make_runner(const Case& c, const std::string& kernel_name, int threads) {
  const Kernel* kernel = kernel_name.empty()
                             ? select_kernel(c.args, isa_table().back().isa, cpu_features())
                             : find_kernel(kernel_name);
  if (kernel == nullptr || !runs_on(kernel->isa, cpu_features()) || !kernel->accepts(c.args) ||
      (kernel->suits != nullptr && !kernel->suits(c.args))) {
    return nullptr;
  }
  return std::make_unique<Runner>(c, kernel, threads);
}

// What Kernel::packs says is never read again shows in the result if it is.
void forget_packed_inputs(Case* c, const Kernel& kernel) {
  for (size_t slot = 0; slot < static_cast<size_t>(c->args.input_count); ++slot) {
    AlignedBuffer& buffer = c->buffers[slot];
    if (kernel.packs >> slot & 1 && buffer.size() > 0) {
      std::memset(buffer.data(), 0x55, buffer.size());
    }
  }
}

// Runs again over each input that Kernel::in_place names and that fits: the bytes stay the same.
void check_in_place(Case* c, Runner* runner) {
  const Kernel& kernel = runner->kernel();
  TensorView& y = c->views.back();
  const size_t out_bytes = y.shape.elements() * dtype_bytes(y.dtype);
  void* const expected = y.data;
  for (size_t slot = 0; slot < static_cast<size_t>(c->args.input_count); ++slot) {
    const TensorView& x = c->views[slot];
    if (!(kernel.in_place >> slot & 1) || !x.present || x.dtype != y.dtype ||
        x.shape.elements() != y.shape.elements()) {
      continue;
    }
    const std::vector<uint8_t> saved(x.as<uint8_t>(), x.as<uint8_t>() + out_bytes);
    y.data = x.data;
    runner->run(/*repeats=*/1);
    const bool same = std::memcmp(x.data, expected, out_bytes) == 0;
    std::memcpy(x.data, saved.data(), out_bytes);
    y.data = expected;
    if (!same) {
      raise_if_error(
          {StatusCode::kUnsupported,
           std::string(kernel.name) + ": other bytes in place of input " + std::to_string(slot)});
    }
  }
}

// None where no kernel (or not the named one) takes the arguments.
py::object run_op(const std::string& op, const std::vector<int32_t>& ints,
                  const std::vector<float>& floats, const std::vector<py::object>& inputs,
                  const std::vector<QuantPair>& input_quant, const std::string& out_dtype,
                  const QuantPair& out_quant, const std::string& kernel_name, int threads,
                  int repeats) {
  const auto c = make_case(op, ints, floats, inputs, input_quant, out_dtype, out_quant);
  const auto runner = make_runner(*c, kernel_name, threads);
  if (runner == nullptr) return py::none();
  forget_packed_inputs(c.get(), runner->kernel());
  runner->run(repeats);
  check_in_place(c.get(), runner.get());
  return to_array(c->output().data, c->output().dtype, c->output().shape);
}

// The kernel that a CPU with these features gets; None where there is none.
py::object select_op(const std::string& op, const std::vector<int32_t>& ints,
                     const std::vector<float>& floats, const std::vector<py::object>& inputs,
                     const std::vector<QuantPair>& input_quant, const std::string& out_dtype,
                     const QuantPair& out_quant, const std::vector<std::string>& features) {
  const auto c = make_case(op, ints, floats, inputs, input_quant, out_dtype, out_quant);
  CpuFeatures cpu{cpu_features().architecture, 0};
  for (uint32_t bit = 0; bit < 32; ++bit) {
    const std::vector<std::string> name = feature_names({cpu.architecture, 1u << bit});
    for (const std::string& feature : features) {
      if (!name.empty() && feature == name[0]) cpu.bits |= 1u << bit;
    }
  }
  const Kernel* kernel = select_kernel(c->args, isa_table().back().isa, cpu);
  return kernel == nullptr ? py::object(py::none()) : py::str(kernel->name);
}

// Addresses of a kernel's functions and of what they take, for an emulator of other CPUs.
py::dict op_addresses(const Case& c, const std::string& kernel_name) {
  const Kernel* kernel = find_kernel(kernel_name);
  if (kernel == nullptr) raise_if_error(invalid_argument("kernel: there is no " + kernel_name));
  const auto address = [](auto* function) { return reinterpret_cast<uintptr_t>(function); };
  py::dict result;
  result["args"] = address(&c.args);
  result["accepts"] = address(kernel->accepts);
  result["prepared_bytes"] = address(kernel->prepared_bytes);
  result["prepare"] = address(kernel->prepare);
  result["scratch_bytes"] = address(kernel->scratch_bytes);
  result["tasks"] = address(kernel->tasks);
  result["run"] = address(kernel->run);
  return result;
}

}  // namespace

void bind_kernels(py::module_& m) {
  m.def("kernel_names", &kernel_names, py::arg("op"),
        "(name, isa, runs on this CPU) of every compiled kernel of an operation.");
  m.def("infer_shape", &infer_shape, py::arg("op"), py::arg("ints"), py::arg("floats"),
        py::arg("inputs"));
  py::class_<Case>(m, "OpCase", "One operation with its tensors; arguments as those of run_op.")
      .def(py::init(&make_case), py::arg("op"), py::arg("ints"), py::arg("floats"),
           py::arg("inputs"), py::arg("input_quant"), py::arg("out_dtype"), py::arg("out_quant"))
      .def("addresses", &op_addresses, py::arg("kernel"),
           "Of the OpArgs and of each function of a kernel; 0 where it has none.")
      .def("runner", &make_runner, py::arg("kernel"), py::arg("threads") = 1,
           py::keep_alive<0, 1>(),
           "The kernel of that name, its constants packed; None where it does not take the case.")
      .def("output", [](const Case& c) {
        return to_array(c.output().data, c.output().dtype, c.output().shape);
      });
  py::class_<Runner>(m, "OpRunner").def("run", &Runner::run, py::arg("repeats"));
  m.def("select_op", &select_op, py::arg("op"), py::arg("ints"), py::arg("floats"),
        py::arg("inputs"), py::arg("input_quant"), py::arg("out_dtype"), py::arg("out_quant"),
        py::arg("features"), "The kernel that a CPU with these features gets, by name.");
  m.def("run_op", &run_op, py::arg("op"), py::arg("ints"), py::arg("floats"), py::arg("inputs"),
        py::arg("input_quant"), py::arg("out_dtype"), py::arg("out_quant"), py::arg("kernel") = "",
        py::arg("threads") = 1, py::arg("repeats") = 1);
}

}  // namespace pyedge
