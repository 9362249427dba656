// The AMX convolution over tiles in plain memory, as Intel's Software Developer's Manual describes
// them (volume 1, chapter 18, and the pages of the instructions). Needs AVX-512 for what follows
// the tiles. A program that breaks a rule which raises an exception on the CPU ends here too.
#include "check.h"
#include "kernels/conv/i8/amx_panel.h"

namespace pyedge {
namespace {

struct EmulatedTiles {
  static thread_local AmxConfig config;  // palette 0: released
  static thread_local uint8_t tiles[8][16][64];

  static void configure(const AmxConfig& c) {
    CHECK(c.palette == 1 && c.start_row == 0);
    for (const uint8_t byte : c.reserved) CHECK(byte == 0);
    for (size_t t = 0; t < 16; ++t) {
      CHECK(t < 8 ? c.rows[t] <= 16 && c.row_bytes[t] <= 64 : !c.rows[t] && !c.row_bytes[t]);
      CHECK((c.rows[t] == 0) == (c.row_bytes[t] == 0));
    }
    config = c;
    __builtin_memset(tiles, 0, sizeof tiles);
  }
  static void release() { config = {}; }

  template <int kTile>
  static void load(const void* p, size_t stride) {
    CHECK(config.palette == 1 && config.rows[kTile] > 0);
    __builtin_memset(tiles[kTile], 0, sizeof tiles[kTile]);
    for (size_t row = 0; row < config.rows[kTile]; ++row) {
      __builtin_memcpy(tiles[kTile][row], static_cast<const char*>(p) + row * stride,
                       config.row_bytes[kTile]);
    }
  }

  template <int kTile>
  static void store(void* p, size_t stride) {
    CHECK(config.palette == 1 && config.rows[kTile] > 0);
    for (size_t row = 0; row < config.rows[kTile]; ++row) {
      __builtin_memcpy(static_cast<char*>(p) + row * stride, tiles[kTile][row],
                       config.row_bytes[kTile]);
    }
  }

  template <int kSum, int kA, int kB>
  static void dot() {
    CHECK(kSum != kA && kSum != kB && kA != kB && config.palette == 1);
    CHECK(config.row_bytes[kSum] % 4 == 0 && config.row_bytes[kSum] == config.row_bytes[kB]);
    CHECK(config.row_bytes[kA] % 4 == 0 && config.row_bytes[kA] / 4 == config.rows[kB]);
    CHECK(config.rows[kSum] == config.rows[kA]);
    for (size_t m = 0; m < config.rows[kSum]; ++m) {
      uint32_t sums[16];
      __builtin_memcpy(sums, tiles[kSum][m], sizeof sums);
      for (size_t k = 0; k < config.rows[kB]; ++k) {
        for (size_t n = 0; n < config.row_bytes[kSum] / 4u; ++n) {
          for (size_t i = 0; i < 4; ++i) {
            const int32_t a = static_cast<int8_t>(tiles[kA][m][4 * k + i]);
            sums[n] += static_cast<uint32_t>(a * static_cast<int8_t>(tiles[kB][k][4 * n + i]));
          }
        }
      }
      __builtin_memcpy(tiles[kSum][m], sums, sizeof sums);
    }
  }
};

thread_local AmxConfig EmulatedTiles::config = {};
thread_local uint8_t EmulatedTiles::tiles[8][16][64];

}  // namespace

extern const Kernel conv_i8_amx_emulated =
    i8_amx_kernel<EmulatedTiles>("conv_i8_amx_emulated", Isa::avx512vnni);
extern const Kernel conv_i8_strip_amx_emulated =
    i8_strip_amx_kernel<EmulatedTiles>("conv_i8_strip_amx_emulated", Isa::avx512vnni);

}  // namespace pyedge
