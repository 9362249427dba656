// The native file, little-endian throughout:
//
//   header      96 bytes, then the SHA-256 of the whole file with the digest itself as zeros
//   metadata    128 bytes
//   tensors     64 bytes each
//   nodes       48 bytes each
//   inputs      u32 tensor index each
//   outputs     u32 tensor index each
//   integers    i32 each: node inputs, outputs and integer attributes
//   floats      f32 each: float attributes
//   strings     UTF-8, not terminated
//   padding     zeros to a multiple of 64
//   weights     each constant at a multiple of 64
//
// The sections follow each other without gaps, so a file has no offset to lie with except those
// into the pools and the weights. converters/native.py writes it; this folder alone reads it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/buffer.h"
#include "base/file.h"
#include "base/status.h"
#include "graph/graph.h"

namespace pyedge {

struct FormatLimits {
  uint32_t tensors = 1u << 15;
  uint32_t nodes = 1u << 14;
  uint32_t graph_ends = 64;  // inputs, outputs
  uint32_t pool = 1u << 21;  // integers, floats, string bytes
  uint32_t name_bytes = 1024;
  uint64_t file_bytes = uint64_t{1} << 33;
};
constexpr FormatLimits kFormatLimits;

// A model in memory: the graph and the bytes its constants point into. Immutable and shared.
struct Model {
  Graph graph;
  // Constants that no kernel reads any more may be gone from here: runtime/residency.h.
  mutable AlignedBuffer bytes;
  File file;  // that they are read from again; not open where the model came from memory
  size_t file_bytes = 0;
  std::string sha256;  // hexadecimal, of the file
};

struct ReadOptions {
  bool verify_digest = true;  // off only for the fuzzer, which cannot guess digests
};

// Reads untrusted bytes; copies them. Every error is kInvalidModel and names the field.
Status read_model(const uint8_t* data, size_t bytes, const ReadOptions& options,
                  std::shared_ptr<const Model>* model);
Status read_model_file(const std::string& path, std::shared_ptr<const Model>* model);

// The same bytes of the same file once more; an error where it has changed.
Status reread_model(const Model& model, AlignedBuffer* bytes);

}  // namespace pyedge
