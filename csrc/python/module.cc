#include <algorithm>

#include "base/histogram.h"
#include "cpu/cpu.h"
#include "kernels/bandwidth/bandwidth.h"
#include "kernels/kernel.h"
#include "kernels/peak/peak.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace pyedge {

void raise_if_error(const Status& status) {
  if (status.ok()) return;
  const char* name = "PyEdgeError";
  switch (status.code()) {
    case StatusCode::kInvalidModel:
      name = "InvalidModelError";
      break;
    case StatusCode::kInvalidArgument:
      name = "InvalidArgumentError";
      break;
    case StatusCode::kUnsupported:
      name = "UnsupportedError";
      break;
    case StatusCode::kOutOfMemory:
      PyErr_SetString(PyExc_MemoryError, status.message().c_str());
      throw py::error_already_set();
    case StatusCode::kOk:
    case StatusCode::kIo:
      break;
  }
  const py::object type = py::module_::import("pyedge.errors").attr(name);
  PyErr_SetString(type.ptr(), status.message().c_str());
  throw py::error_already_set();
}

py::tuple shape_tuple(const Shape& shape) {
  py::tuple result(static_cast<size_t>(shape.rank));
  for (int axis = 0; axis < shape.rank; ++axis) result[static_cast<size_t>(axis)] = shape[axis];
  return result;
}

const char* dtype_name(DType dtype) {
  return dtype == DType::kF32 ? "f32" : dtype == DType::kF16 ? "f16" : "i8";
}

py::array to_array(const void* data, DType dtype, const Shape& shape) {
  const std::vector<py::ssize_t> dims(shape.dims.begin(), shape.dims.begin() + shape.rank);
  if (dtype == DType::kF32) return py::array_t<float>(dims, static_cast<const float*>(data));
  return py::array_t<int8_t>(dims, static_cast<const int8_t*>(data));
}

Shape array_shape(const py::array& array, const std::string& name) {
  Shape shape;
  shape.rank = static_cast<int>(array.ndim());
  for (int axis = 0; axis < shape.rank; ++axis) {
    if (axis == kMaxRank || array.shape(axis) > INT32_MAX) {
      raise_if_error(invalid_argument(name + ": more than six axes, or one of more than 2^31"));
    }
    shape[axis] = static_cast<int32_t>(array.shape(axis));
  }
  return shape;
}

namespace {

py::dict features() {
  py::dict result;
  const CpuFeatures& cpu = cpu_features();
  result["cpu"] = cpu_model_name();
  result["cpu_features"] = feature_names(cpu);
  py::dict sets;
  size_t count = 0;
  const Kernel* const* all = kernels(&count);
  for (const IsaInfo& info : isa_table()) {
    py::list names;
    for (size_t i = 0; i < count; ++i) {
      if (all[i]->isa == info.isa) names.append(all[i]->name);
    }
    py::dict set;
    set["kernels"] = names;
    set["available"] = runs_on(info.isa, cpu) && py::len(names) > 0;
    const CpuFeatures missing{info.architecture, info.features & ~cpu.bits};
    set["missing_features"] = feature_names(missing);
    sets[info.name] = set;
  }
  result["isa"] = sets;
  Isa best;
  raise_if_error(choose_isa("", cpu, &best));
  result["default_isa"] = isa_table()[static_cast<size_t>(best)].name;
  return result;
}

py::dict ops() {
  py::dict result;
  for (const OpInfo& info : op_table()) {
    py::dict row;
    row["code"] = static_cast<uint32_t>(info.op);
    row["min_inputs"] = info.min_inputs;
    row["max_inputs"] = info.max_inputs;
    row["ints"] = py::str(info.ints).attr("split")();
    row["floats"] = py::str(info.floats).attr("split")();
    result[info.name] = row;
  }
  return result;
}

py::dict peak(const std::string& isa_name) {
  Isa isa;
  raise_if_error(choose_isa(isa_name, cpu_features(), &isa));
  Peak measured;
  {
    const py::gil_scoped_release unlocked;
    measured = measure_peak(isa);
  }
  py::dict result;
  result["f32_gflops"] = measured.f32_gflops;
  result["i8_gops"] = measured.i8_gops;
  return result;
}

double bandwidth(const std::string& isa_name, size_t bytes) {
  Isa isa;
  raise_if_error(choose_isa(isa_name, cpu_features(), &isa));
  const py::gil_scoped_release unlocked;
  return measure_bandwidth(isa, bytes);
}

py::array_t<int64_t> histogram(const py::array_t<float, py::array::c_style>& values, int32_t bins,
                               float absmax) {
  if (bins < 1 || !(absmax > 0.0f)) {
    raise_if_error(invalid_argument("bins and absmax must be positive"));
  }
  py::array_t<int64_t> counts(bins);
  int64_t* const data = counts.mutable_data();
  std::fill(data, data + bins, int64_t{0});
  const py::gil_scoped_release unlocked;
  histogram_abs(values.data(), static_cast<size_t>(values.size()), bins, absmax, data);
  return counts;
}

}  // namespace
}  // namespace pyedge

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core of pyedge.";
  m.def("features", &pyedge::features);
  m.def("op_table", &pyedge::ops);
  m.def("histogram_abs", &pyedge::histogram, py::arg("values"), py::arg("bins"), py::arg("absmax"));
  m.def("measure_peak", &pyedge::peak, py::arg("isa"));
  m.def("measure_bandwidth", &pyedge::bandwidth, py::arg("isa"), py::arg("bytes"));
  pyedge::bind_session(m);
  pyedge::bind_kernels(m);
}
