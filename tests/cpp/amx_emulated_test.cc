// The AMX convolution over emulated tiles gives the bytes of the reference: its layout, its
// blocking and its tile configurations on any CPU with AVX-512.
#include <cstdio>

#include "conv_layer.h"
#include "cpu/cpu.h"

namespace pyedge {

#if PYEDGE_X86
extern const Kernel conv_i8_reference, conv_i8_amx_emulated, conv_i8_strip_amx_emulated;

namespace {

void test_layer(const ConvCase& c) {
  ConvLayer layer(c);
  const std::vector<uint8_t> want = layer.run(conv_i8_reference, 1);
  for (const size_t parts : {size_t{1}, size_t{3}}) {
    CHECK(layer.run(conv_i8_amx_emulated, parts) == want);
    if (conv_i8_strip_amx_emulated.accepts(layer.args())) {
      CHECK(layer.run(conv_i8_strip_amx_emulated, parts) == want);
    }
  }
}

void test_layers() {
  // Tiles of pixels that are full, short and overlapping; steps that are none, one and many tiles.
  for (const int32_t channels : {1, 3, 16, 17, 64, 127}) {
    for (const int32_t width : {1, 5, 16, 17, 33, 50}) {
      test_layer({1, 1, width, channels, 33, 1, 1, 0, 1, -128, true, true, false, 0});
      test_layer({3, 1, width, channels, 64, 1, 1, 0, 1, 11, false, false, true, 0});
      const Activation activation = static_cast<Activation>(1 + width % 4);
      test_layer(
          {1, 2, width, channels, 70, 3, 1, 1, 1, 5, false, false, width > 16, 0, activation});
    }
    for (const int32_t kernel : {1, 3, 5}) {
      for (const int32_t stride : {1, 2}) {
        const int32_t pad = kernel / 2;
        test_layer({2, 7, 9, channels, 70, kernel, stride, pad, 1, 127, true, true, false, 0});
        test_layer({1, 7, 9, channels, 24, kernel, stride, pad, 1, -7, true, true, true, 1});
      }
    }
  }
  test_layer({3, 9, 10, 12, 18, 3, 1, 1, 3, 5, true, false, false, 0});
  test_layer({1, 8, 8, 6, 6, 3, 1, 1, 6, -128, true, false, false, 0});
  // Groups that are joined: all of them, those that fill a block, a number that is prime.
  test_layer({2, 7, 9, 48, 48, 3, 1, 1, 24, 5, true, true, false, 0});
  test_layer({1, 5, 17, 192, 192, 3, 2, 1, 96, -128, true, false, true, 0});
  test_layer({3, 4, 5, 21, 14, 1, 1, 0, 7, 11, false, false, false, 1});
  test_layer({1, 1, 1, 4096, 33, 1, 1, 0, 1, -128, false, false, true, 1});
  test_layer({1, 14, 14, 256, 64, 3, 1, 1, 1, -128, true, true, false, 0});
}

}  // namespace

int run_tests() {
  if (!runs_on(Isa::avx512vnni, cpu_features())) {
    std::puts("NOT TESTED: AMX over emulated tiles, because this CPU has no AVX512-VNNI");
    return 0;
  }
  test_layers();
  return 0;
}
#else
int run_tests() { return 0; }
#endif

}  // namespace pyedge

int main() { return pyedge::run_tests(); }
