#include "graph/graph.h"

namespace pyedge {

const std::vector<OpInfo>& op_table() {
  static const std::vector<OpInfo> table = {
#define OP(code, name, min_inputs, max_inputs, outputs, ints, floats) \
  {Op::k_##name, #name, min_inputs, max_inputs, outputs, ints, floats},
#include "graph/ops.def"
#undef OP
  };
  return table;
}

const OpInfo* find_op(uint32_t code) {
  for (const OpInfo& info : op_table()) {
    if (static_cast<uint32_t>(info.op) == code) return &info;
  }
  return nullptr;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int axis = 0; axis < rank; ++axis) {
    if (axis > 0) text += ", ";
    text += (*this)[axis] == kAnyDim ? "any" : std::to_string((*this)[axis]);
  }
  return text + "]";
}

}  // namespace pyedge
