// A quantized convolution with random contents, for the native tests of its kernels.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/buffer.h"
#include "check.h"
#include "kernels/conv/conv.h"

namespace pyedge {

struct ConvCase {
  int32_t batch, height, width, in_c, out_c, kernel, stride, pad, groups;
  int32_t zero_point;
  bool slope, residual, f32;
  int corners;  // 0: random values, 1: only -128 and 127
  Activation activation = Activation::kNone;
};

class ConvLayer {
 public:
  explicit ConvLayer(const ConvCase& c) : random_(7), values_(c.corners) {
    const int32_t out_h = (c.height + 2 * c.pad - c.kernel) / c.stride + 1;
    const int32_t out_w = (c.width + 2 * c.pad - c.kernel) / c.stride + 1;
    const Shape y{4, {c.batch, out_h, out_w, c.out_c}};
    add(kConvX, DType::kI8, {4, {c.batch, c.height, c.width, c.in_c}}, {0.05f, c.zero_point});
    add(kConvWeight, DType::kI8, {4, {c.out_c, c.kernel, c.kernel, c.in_c / c.groups}}, {});
    add(kConvBias, DType::kF32, {1, {c.out_c}}, {});
    add(kConvWeightScale, DType::kF32, {1, {c.out_c}}, {});
    const float spread = 0.002f / static_cast<float>(c.kernel);
    float* scale = views_[kConvWeightScale].mutable_as<float>();
    for (int32_t i = 0; i < c.out_c; ++i) scale[i] = spread * (1.5f + 0.25f * scale[i]);
    if (c.slope) add(kConvSlope, DType::kF32, {1, {c.out_c}}, {});
    const DType out = c.f32 ? DType::kF32 : DType::kI8;
    if (c.residual) add(kConvResidual, out, y, {0.04f, 3});
    out_.dtype = out, out_.shape = y, out_.quant = {0.03f, -5}, out_.present = true;
    const int32_t activation = static_cast<int32_t>(c.activation);
    const int32_t ints[] = {c.stride, c.stride, 1,     1,        c.pad,
                            c.pad,    c.pad,    c.pad, c.groups, activation};
    std::memcpy(ints_, ints, sizeof ints);
  }

  OpArgs args() { return {Op::k_conv, ints_, 10, bounds_, 2, views_, kConvResidual + 1, &out_, 1}; }

  // The bytes of the output. Tasks run in `parts` calls, each with scratch of its own.
  std::vector<uint8_t> run(const Kernel& kernel, size_t parts) {
    AlignedBuffer prepared, scratch, y;
    const size_t bytes = out_.shape.elements() * dtype_bytes(out_.dtype);
    CHECK(y.allocate(bytes + kSlack));
    out_.data = y.data();
    const OpArgs a = args();
    CHECK(kernel.accepts(a));
    if (kernel.prepared_bytes) {
      CHECK(prepared.allocate(kernel.prepared_bytes(a)));
      kernel.prepare(a, prepared.data());
    }
    const size_t tasks = kernel.tasks(a),
                 scratch_bytes = kernel.scratch_bytes ? kernel.scratch_bytes(a) : 0;
    for (size_t part = 0; part < parts; ++part) {
      CHECK(scratch.allocate(scratch_bytes + kAlignment));
      std::memset(scratch.data(), 0x7f, scratch.size());
      kernel.run(a, prepared.data(), scratch.data(), part * tasks / parts,
                 (part + 1) * tasks / parts);
    }
    const uint8_t* data = static_cast<const uint8_t*>(out_.data);
    return {data, data + bytes};
  }

 private:
  void add(ConvSlot slot, DType dtype, const Shape& shape, const Quant& quant) {
    AlignedBuffer& buffer = buffers_[slot];
    const size_t count = shape.elements();
    CHECK(buffer.allocate(count * dtype_bytes(dtype) + kSlack));
    std::memset(buffer.data(), 0x7f, buffer.size());
    TensorView& view = views_[slot];
    view.data = buffer.data();
    view.dtype = dtype, view.shape = shape, view.quant = quant, view.present = true;
    for (size_t i = 0; i < count; ++i) {
      if (dtype == DType::kF32) {
        view.mutable_as<float>()[i] = static_cast<float>(random_() % 2001) / 1000.0f - 1.0f;
      } else {
        const int32_t value = static_cast<int32_t>(random_() % 256) - 128;
        view.mutable_as<int8_t>()[i] = static_cast<int8_t>(values_ == 0 ? value
                                                           : value < 0  ? -128
                                                                        : 127);
      }
    }
  }

  std::mt19937 random_;
  int values_;
  int32_t ints_[10];
  float bounds_[2] = {-std::numeric_limits<float>::infinity(),
                      std::numeric_limits<float>::infinity()};
  AlignedBuffer buffers_[kConvResidual + 1];
  TensorView views_[kConvResidual + 1];
  TensorView out_;
};

}  // namespace pyedge
