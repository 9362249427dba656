#include "digest/sha256.h"

#include <algorithm>
#include <cstring>

#include "digest/compress.h"

namespace pyedge {
namespace {

uint32_t rotate_right(uint32_t x, int n) { return x >> n | x << (32 - n); }

void compress(uint32_t* state, const uint8_t* data, size_t blocks) {
  for (; blocks > 0; --blocks, data += 64) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i) {
      w[i] = static_cast<uint32_t>(data[4 * i]) << 24 |
             static_cast<uint32_t>(data[4 * i + 1]) << 16 |
             static_cast<uint32_t>(data[4 * i + 2]) << 8 | data[4 * i + 3];
    }
    for (int i = 16; i < 64; ++i) {
      const uint32_t s0 = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ w[i - 15] >> 3;
      const uint32_t s1 = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; ++i) {
      const uint32_t s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
      const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
      const uint32_t s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
      const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t add[8] = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < 8; ++i) state[i] += add[i];
  }
}

Sha256Compress compress_for([[maybe_unused]] const CpuFeatures& features) {
#if PYEDGE_X86
  if (features.bits & kSha256) return sha256_compress_x86_sha;
#elif PYEDGE_ARM
  if (features.bits & kSha256) return sha256_compress_arm_sha2;
#endif
  return compress;
}

}  // namespace

Sha256::Sha256(const CpuFeatures& features) : compress_(compress_for(features)) {}

void Sha256::update(const uint8_t* data, size_t bytes) {
  size_t filled = bytes_ % 64;
  bytes_ += bytes;
  if (filled > 0) {
    const size_t take = std::min(bytes, 64 - filled);
    std::memcpy(buffer_.data() + filled, data, take);
    data += take, bytes -= take, filled += take;
    if (filled < 64) return;
    compress_(state_.data(), buffer_.data(), 1);
  }
  compress_(state_.data(), data, bytes / 64);
  if (bytes % 64 > 0) std::memcpy(buffer_.data(), data + bytes / 64 * 64, bytes % 64);
}

std::array<uint8_t, 32> Sha256::digest() {
  const uint64_t bits = bytes_ * 8;
  const uint8_t one = 0x80, zero = 0;
  update(&one, 1);
  while (bytes_ % 64 != 56) update(&zero, 1);
  std::array<uint8_t, 8> length;
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  update(length.data(), 8);
  std::array<uint8_t, 32> result;
  for (size_t i = 0; i < 32; ++i) {
    result[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  }
  return result;
}

}  // namespace pyedge
