#include "runtime/session.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <mutex>

#include "graph/shapes.h"
#include "python/bindings.h"
#include "runtime/batch.h"

namespace py = pybind11;

namespace pyedge {
namespace {

// Larger batches run in pieces, so that the arena stays small.
constexpr py::ssize_t kMaxBatch = 8;

std::shared_ptr<LoadedModel> load_file(const std::string& path) {
  auto result = std::make_shared<LoadedModel>();
  Status status;
  {
    const py::gil_scoped_release unlocked;
    status = read_model_file(path, &result->model);
  }
  raise_if_error(status);
  return result;
}

std::shared_ptr<LoadedModel> load_bytes(const py::bytes& bytes) {
  auto result = std::make_shared<LoadedModel>();
  const std::string_view view = bytes;
  raise_if_error(
      read_model(reinterpret_cast<const uint8_t*>(view.data()), view.size(), {}, &result->model));
  return result;
}

void use_cache(LoadedModel* loaded, const std::string& path) {
  Status status;
  {
    const py::gil_scoped_release unlocked;
    status = loaded->prepared.use_file(path, *loaded->model);
  }
  raise_if_error(status);
}

py::dict metadata(const LoadedModel& loaded) {
  const Metadata& m = loaded.model->graph.metadata;
  static constexpr const char* kColors[] = {"none", "rgb", "bgr"};
  py::dict d;
  d["color"] = kColors[static_cast<uint32_t>(m.color)];
  d["input_size"] = py::make_tuple(m.input_width, m.input_height);
  d["mean"] = py::tuple(py::cast(m.mean));
  d["scale"] = py::tuple(py::cast(m.scale));
  d["embedding_size"] = m.embedding_size;
  d["landmarks"] = py::none();
  if (m.has_landmarks) {
    py::list points;
    for (size_t i = 0; i < 10; i += 2) {
      points.append(py::make_tuple(m.landmarks[i], m.landmarks[i + 1]));
    }
    d["landmarks"] = py::tuple(points);
  }
  d["model_name"] = m.model_name;
  d["feature_space"] = m.feature_space;
  d["producer"] = m.producer;
  return d;
}

py::list input_infos(const LoadedModel& loaded) {
  const Graph& graph = loaded.model->graph;
  py::list infos;
  for (const int32_t index : graph.inputs) {
    const Tensor& t = graph.tensors[static_cast<size_t>(index)];
    infos.append(py::make_tuple(t.name, shape_tuple(t.shape)));
  }
  return infos;
}

std::vector<Shape> to_shapes(const Graph& graph, const std::vector<std::vector<int32_t>>& dims) {
  if (dims.size() != graph.inputs.size()) {
    raise_if_error(invalid_argument("shapes: one for each of the " +
                                    std::to_string(graph.inputs.size()) + " inputs, got " +
                                    std::to_string(dims.size())));
  }
  std::vector<Shape> shapes;
  for (const auto& axes : dims) {
    if (axes.size() > kMaxRank) raise_if_error(invalid_argument("shape: more than six axes"));
    Shape& shape = shapes.emplace_back();
    for (const int32_t dim : axes) shape[shape.rank++] = dim;
  }
  return shapes;
}

// (name, shape) of every output for these input shapes.
py::list infer_outputs(const LoadedModel& loaded, const std::vector<std::vector<int32_t>>& dims) {
  const Graph& graph = loaded.model->graph;
  std::vector<Shape> shapes;
  raise_if_error(infer_shapes(graph, to_shapes(graph, dims), &shapes));
  py::list infos;
  for (const int32_t index : graph.outputs) {
    const auto t = static_cast<size_t>(index);
    infos.append(py::make_tuple(graph.tensors[t].name, shape_tuple(shapes[t])));
  }
  return infos;
}

// A Session with a lock: Python may call it from several threads.
class PySession {
 public:
  PySession(std::shared_ptr<LoadedModel> model, int threads, const std::string& isa,
            const std::string& affinity, bool keep_activations) {
    SessionOptions options;
    options.threads = threads, options.isa = isa, options.keep_activations = keep_activations;
    raise_if_error(parse_affinity(affinity, &options.affinity));
    raise_if_error(Session::create(std::move(model), options, &session_));
  }

  py::list run(const std::vector<py::array>& arrays) {
    const Inputs inputs = check_inputs(arrays);
    const Graph& graph = session_->graph();
    check_finite(inputs);
    const auto lock = acquire();
    const py::ssize_t batch = inputs.shapes[0][0];
    const bool split = batch > kMaxBatch && images_are_independent(graph, inputs.shapes);
    const py::ssize_t piece = split ? kMaxBatch : batch;
    std::vector<py::array_t<float>> outputs;
    for (py::ssize_t first = 0; first < batch; first += piece) {
      const auto rows = static_cast<int32_t>(std::min(piece, batch - first));
      std::vector<Shape> shapes = inputs.shapes;
      std::vector<const float*> in;
      for (size_t i = 0; i < shapes.size(); ++i) {
        const size_t row = shapes[i].elements() / static_cast<size_t>(shapes[i][0]);
        in.push_back(inputs.arrays[i].data() + static_cast<size_t>(first) * row);
        if (split) shapes[i][0] = rows;
      }
      const Session::Plan& plan = planned(shapes);
      std::vector<float*> out;
      for (size_t i = 0; i < graph.outputs.size(); ++i) {
        Shape shape = plan.shapes[static_cast<size_t>(graph.outputs[i])];
        const size_t row = shape.elements() / static_cast<size_t>(std::max(shape[0], 1));
        if (first == 0) {
          if (split) shape[0] = static_cast<int32_t>(batch);
          outputs.emplace_back(
              std::vector<py::ssize_t>(shape.dims.begin(), shape.dims.begin() + shape.rank));
        }
        out.push_back(outputs[i].mutable_data() + static_cast<size_t>(first) * row);
      }
      const py::gil_scoped_release unlocked;
      session_->run(plan, in.data(), out.data());
    }
    py::list result;
    for (auto& array : outputs) result.append(std::move(array));
    return result;
  }

  // Every requested tensor by name, after one run of the whole batch.
  py::dict run_taps(const std::vector<py::array>& arrays, const std::vector<std::string>& names) {
    const Inputs inputs = check_inputs(arrays);
    const Graph& graph = session_->graph();
    const auto lock = acquire();
    const Session::Plan& plan = planned(inputs.shapes);
    run_into_scratch(plan, inputs, nullptr);
    py::dict result;
    for (size_t t = 0; t < graph.tensors.size(); ++t) {
      const Tensor& tensor = graph.tensors[t];
      if (tensor.constant || plan.shapes[t].rank == 0) continue;
      if (!names.empty() && std::find(names.begin(), names.end(), tensor.name) == names.end()) {
        continue;
      }
      result[py::str(tensor.name)] =
          to_array(session_->activation(plan, t), tensor.dtype, plan.shapes[t]);
    }
    return result;
  }

  // Seconds for each layer and run: float64 [repeats, layers].
  py::array_t<double> profile(const std::vector<py::array>& arrays, int repeats) {
    const Inputs inputs = check_inputs(arrays);
    const auto lock = acquire();
    const Session::Plan& plan = planned(inputs.shapes);
    py::array_t<double> seconds(
        {static_cast<py::ssize_t>(repeats), static_cast<py::ssize_t>(plan.steps.size())});
    for (int r = 0; r < repeats; ++r) run_into_scratch(plan, inputs, seconds.mutable_data(r, 0));
    return seconds;
  }

  void prepare(const std::vector<std::vector<int32_t>>& input_shapes) {
    const auto lock = acquire();
    planned(to_shapes(session_->graph(), input_shapes));
  }

  py::list layers(const std::vector<std::vector<int32_t>>& input_shapes) {
    const auto lock = acquire();
    const Session::Plan& plan = planned(to_shapes(session_->graph(), input_shapes));
    py::list result;
    for (const Session::Step& step : plan.steps) result.append(layer(plan, step));
    return result;
  }

  std::string isa() const { return isa_table()[static_cast<size_t>(session_->isa())].name; }
  int threads() const { return session_->threads(); }
  std::vector<int> cpus() const { return session_->cpus(); }

  // Bytes in memory by what they are for, and why the file of packed weights could not be written.
  py::dict memory() const {
    const LoadedModel& loaded = session_->model();
    const PreparedCache::Usage usage = loaded.prepared.usage(*loaded.model);
    py::dict d;
    d["arena_bytes"] = session_->arena_bytes();
    d["scratch_bytes"] = session_->scratch_bytes();
    d["packed_bytes"] = usage.packed_bytes;
    d["mapped_bytes"] = usage.mapped_bytes;
    d["model_bytes"] = usage.model_bytes;
    d["cache_problem"] =
        usage.file.ok() ? py::object(py::none()) : py::object(py::str(usage.file.message()));
    return d;
  }

 private:
  struct Inputs {
    std::vector<py::array_t<float, py::array::c_style>> arrays;
    std::vector<Shape> shapes;
  };

  // The lock is waited for without the interpreter, which its holder may need.
  std::unique_lock<std::mutex> acquire() {
    const py::gil_scoped_release unlocked;
    return std::unique_lock<std::mutex>(mutex_);
  }

  Session::Plan& planned(const std::vector<Shape>& shapes) {
    Session::Plan* plan = nullptr;
    Status status;
    {
      const py::gil_scoped_release unlocked;  // another session may be packing the weights
      status = session_->plan(shapes, &plan);
    }
    raise_if_error(status);
    return *plan;
  }

  Inputs check_inputs(const std::vector<py::array>& arrays) const {
    const Graph& graph = session_->graph();
    if (arrays.size() != graph.inputs.size()) {
      raise_if_error(invalid_argument("inputs: the model takes " +
                                      std::to_string(graph.inputs.size()) + ", got " +
                                      std::to_string(arrays.size())));
    }
    Inputs inputs;
    for (size_t i = 0; i < arrays.size(); ++i) {
      const Tensor& t = graph.tensors[static_cast<size_t>(graph.inputs[i])];
      if (!py::isinstance<py::array_t<float>>(arrays[i])) {
        raise_if_error(invalid_argument("input " + t.name + ": the model takes float32, got " +
                                        py::str(arrays[i].dtype()).cast<std::string>()));
      }
      const Shape shape = array_shape(arrays[i], "input " + t.name);
      bool fits = shape.rank == t.shape.rank && shape.elements() > 0;
      for (int axis = 0; fits && axis < shape.rank; ++axis) {
        fits = t.shape[axis] == kAnyDim || t.shape[axis] == shape[axis];
      }
      if (!fits) {
        raise_if_error(invalid_argument("input " + t.name + ": the model takes " +
                                        t.shape.to_string() + " (any: 1 or more), got " +
                                        shape.to_string()));
      }
      inputs.arrays.emplace_back(arrays[i]);
      inputs.shapes.push_back(shape);
    }
    return inputs;
  }

  // A clamp would turn what is not a number into one, and the result would look like a face's.
  void check_finite(const Inputs& inputs) const {
    for (size_t i = 0; i < inputs.arrays.size(); ++i) {
      const float* values = inputs.arrays[i].data();
      const auto count = static_cast<size_t>(inputs.arrays[i].size());
      bool finite = true;
      for (size_t k = 0; k < count; ++k) finite &= std::fabs(values[k]) <= FLT_MAX;
      if (finite) continue;
      const Graph& graph = session_->graph();
      raise_if_error(invalid_argument("input " +
                                      graph.tensors[static_cast<size_t>(graph.inputs[i])].name +
                                      ": holds a value that is not finite"));
    }
  }

  void run_into_scratch(const Session::Plan& plan, const Inputs& inputs, double* step_seconds) {
    std::vector<const float*> in;
    for (const auto& array : inputs.arrays) in.push_back(array.data());
    std::vector<std::vector<float>> storage;
    std::vector<float*> out;
    for (const int32_t index : session_->graph().outputs) {
      storage.emplace_back(plan.shapes[static_cast<size_t>(index)].elements());
      out.push_back(storage.back().data());
    }
    const py::gil_scoped_release unlocked;
    session_->run(plan, in.data(), out.data(), step_seconds);
  }

  py::dict layer(const Session::Plan& plan, const Session::Step& step) const {
    const Graph& graph = session_->graph();
    const Node& node = graph.nodes[step.node];
    py::dict d;
    d["name"] = node.name;
    d["op"] = find_op(static_cast<uint32_t>(node.op))->name;
    d["kernel"] = step.kernel ? py::object(py::str(step.kernel->name)) : py::object(py::none());
    size_t weight_bytes = 0;
    const auto describe = [&](const std::vector<int32_t>& tensors) {
      py::list list;
      for (const int32_t index : tensors) {
        if (index == kAbsent) continue;
        const auto t = static_cast<size_t>(index);
        const Tensor& tensor = graph.tensors[t];
        if (tensor.constant) {
          weight_bytes += tensor.shape.elements() * dtype_bytes(tensor.dtype);
          continue;
        }
        py::dict item;
        item["name"] = tensor.name;
        item["dtype"] = dtype_name(tensor.dtype);
        item["shape"] = shape_tuple(plan.shapes[t]);
        if (tensor.dtype == DType::kI8) {
          item["scale"] = tensor.quant.scale;
          item["zero_point"] = tensor.quant.zero_point;
        }
        list.append(item);
      }
      return list;
    };
    d["inputs"] = describe(node.inputs);
    d["outputs"] = describe(node.outputs);
    d["weight_bytes"] = weight_bytes;
    d["macs"] = count_macs(node, plan.shapes);
    return d;
  }

  std::unique_ptr<Session> session_;
  std::mutex mutex_;
};

}  // namespace

void bind_session(py::module_& m) {
  py::class_<LoadedModel, std::shared_ptr<LoadedModel>>(m, "Model")
      .def_static("load_file", &load_file, py::arg("path"))
      .def_static("load_bytes", &load_bytes, py::arg("data"))
      .def("use_cache", &use_cache, py::arg("path"))
      .def_property_readonly("metadata", &metadata)
      .def_property_readonly("file_bytes", [](const LoadedModel& l) { return l.model->file_bytes; })
      .def_property_readonly("sha256", [](const LoadedModel& l) { return l.model->sha256; })
      .def_property_readonly("inputs", &input_infos)
      .def("infer_outputs", &infer_outputs, py::arg("shapes"));
  py::class_<PySession>(m, "Session")
      .def(py::init<std::shared_ptr<LoadedModel>, int, const std::string&, const std::string&,
                    bool>(),
           py::arg("model"), py::arg("threads"), py::arg("isa"), py::arg("affinity"),
           py::arg("keep_activations"))
      .def("run", &PySession::run, py::arg("inputs"))
      .def("run_taps", &PySession::run_taps, py::arg("inputs"), py::arg("names"))
      .def("profile", &PySession::profile, py::arg("inputs"), py::arg("repeats"))
      .def("prepare", &PySession::prepare, py::arg("shapes"))
      .def("layers", &PySession::layers, py::arg("shapes"))
      .def_property_readonly("isa", &PySession::isa)
      .def_property_readonly("threads", &PySession::threads)
      .def_property_readonly("cpus", &PySession::cpus)
      .def("memory", &PySession::memory);
  m.def("thread_budget", [] { return thread_budget().limit(); });
  m.def(
      "set_thread_budget", [](int limit) { thread_budget().set_limit(limit); }, py::arg("limit"));
}

}  // namespace pyedge
