// Shared by the files of the Python extension.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/status.h"
#include "graph/graph.h"

namespace pyedge {

// Raises the exception of pyedge.errors that belongs to the status.
void raise_if_error(const Status& status);

pybind11::tuple shape_tuple(const Shape& shape);
const char* dtype_name(DType dtype);
// A copy of `bytes` as a NumPy array.
pybind11::array to_array(const void* data, DType dtype, const Shape& shape);
// The shape of an array; raises where its rank is beyond kMaxRank.
Shape array_shape(const pybind11::array& array, const std::string& name);

void bind_session(pybind11::module_& m);
void bind_kernels(pybind11::module_& m);

}  // namespace pyedge
