// The dense loops on smull and smlal. Products of signed bytes are summed in chains of int16 lanes,
// and each chain is added to int32 lanes: sums of eight lanes hold the products of k, k + 8, ...
//
// A block of 4 channels x 64 weights (32 at the end of a row) stays in registers while the pixels
// pass by. The longer the chains, the fewer the additions, so packing looks at a block's weights
// for a loop whose chains are long and cannot overflow: there is one for each of a few orders.
//
// Exact: |q| <= 128, so a chain fits in int16 where the magnitudes of its weights sum to 255 or
// less in each lane; of two weights they always do, as |w| <= 127 (validated). The true sum fits
// in int32 (validation bounds the taps), and in between sums are taken modulo 2^32.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace pyedge {
namespace {

constexpr size_t kSmullLength = 16;   // weights of a channel in a register
constexpr size_t kSmullChannels = 4;  // of a block
constexpr size_t kSmullBlock = 4;     // registers of a channel in a block
constexpr size_t kSmullTail = 2;      // in a block at the end of a row

// A loop over pixels, with a block's weights [steps][4 channels][16]. Each pixel's int32 lanes,
// [4 channels][4 lanes], begin with those at `from`; from one pixel to the next `from_bytes`, which
// are 0 where all begin alike. They go to `to`, or their sums do: from one pixel to the next 64
// bytes. Something is also written to the 64 bytes before.
using SmullLoop = void (*)(const int8_t* w, const int8_t* rows, size_t row_bytes, size_t count,
                           const int32_t* from, size_t from_bytes, int32_t* to);
#define SMULL_LOOP                                                                             \
  [](const int8_t* w, const int8_t* rows, size_t row_bytes, size_t count, const int32_t* from, \
     size_t from_bytes, int32_t* to)

// Half registers 0 to 7 of a block by the chains they are in, in order.
#define SMULL_BLOCK_CHAINS(FOURS, THREES, TWOS) \
  FOURS(0, 5, 6, 7, 1, 2, 3, 4)                 \
  FOURS(0, 1, 2, 6, 3, 4, 5, 7)                 \
  FOURS(0, 1, 4, 5, 2, 3, 6, 7)                 \
  FOURS(0, 3, 4, 7, 1, 2, 5, 6)                 \
  FOURS(0, 2, 3, 5, 1, 4, 6, 7)                 \
  FOURS(0, 1, 2, 7, 3, 4, 5, 6)                 \
  FOURS(0, 2, 4, 6, 1, 3, 5, 7)                 \
  FOURS(0, 2, 3, 4, 1, 5, 6, 7)                 \
  THREES(0, 2, 3, 1, 5, 4, 6, 7)                \
  THREES(1, 3, 6, 2, 4, 5, 0, 7)                \
  THREES(2, 4, 7, 3, 5, 6, 0, 1)                \
  TWOS(0, 1, 2, 3, 4, 5, 6, 7)
#define SMULL_TAIL_CHAINS(FOUR, TWOS) FOUR(0, 1, 2, 3) TWOS(0, 1, 2, 3)

struct SmullChains {
  size_t lengths[4], halves[8];
};
#define FOURS(...) {{4, 4}, {__VA_ARGS__}},
#define THREES(...) {{3, 3, 2}, {__VA_ARGS__}},
#define TWOS(...) {{2, 2, 2, 2}, {__VA_ARGS__}},
constexpr SmullChains kSmullBlockChains[] = {SMULL_BLOCK_CHAINS(FOURS, THREES, TWOS)};
#undef FOURS
#undef TWOS
#define FOUR(...) {{4}, {__VA_ARGS__}},
#define TWOS(...) {{2, 2}, {__VA_ARGS__}},
constexpr SmullChains kSmullTailChains[] = {SMULL_TAIL_CHAINS(FOUR, TWOS)};
#undef FOUR
#undef THREES
#undef TWOS

// clang-format off
// A half of the activations in v`a` times that of four channels' weights, into v8 to v11.
#define LOW(op, a, w0, w1, w2, w3)                             \
  op " v8.8h, v" #w0 ".8b, v" #a ".8b\n"                        \
  op " v9.8h, v" #w1 ".8b, v" #a ".8b\n"                        \
  op " v10.8h, v" #w2 ".8b, v" #a ".8b\n"                       \
  op " v11.8h, v" #w3 ".8b, v" #a ".8b\n"
#define HIGH(op, a, w0, w1, w2, w3)                            \
  op "2 v8.8h, v" #w0 ".16b, v" #a ".16b\n"                     \
  op "2 v9.8h, v" #w1 ".16b, v" #a ".16b\n"                     \
  op "2 v10.8h, v" #w2 ".16b, v" #a ".16b\n"                    \
  op "2 v11.8h, v" #w3 ".16b, v" #a ".16b\n"
#define HALF_0(op) LOW(op, 0, 16, 17, 18, 19)
#define HALF_1(op) HIGH(op, 0, 16, 17, 18, 19)
#define HALF_2(op) LOW(op, 1, 20, 21, 22, 23)
#define HALF_3(op) HIGH(op, 1, 20, 21, 22, 23)
#define HALF_4(op) LOW(op, 2, 24, 25, 26, 27)
#define HALF_5(op) HIGH(op, 2, 24, 25, 26, 27)
#define HALF_6(op) LOW(op, 3, 28, 29, 30, 31)
#define HALF_7(op) HIGH(op, 3, 28, 29, 30, 31)
#define ADD(s0, s1, s2, s3)                                    \
  "sadalp v" #s0 ".4s, v8.8h\n"                                 \
  "sadalp v" #s1 ".4s, v9.8h\n"                                 \
  "sadalp v" #s2 ".4s, v10.8h\n"                                \
  "sadalp v" #s3 ".4s, v11.8h\n"
#define CHAIN_2(add, a, b) HALF_##a("smull") HALF_##b("smlal") add
#define CHAIN_3(add, a, b, c) HALF_##a("smull") HALF_##b("smlal") HALF_##c("smlal") add
#define CHAIN_4(add, a, b, c, d) \
  HALF_##a("smull") HALF_##b("smlal") HALF_##c("smlal") HALF_##d("smlal") add

// What is done with a pixel's lanes: before the next one's are loaded, after that, and at the end
// of its products.
#define KEEP_LANES(s0, s1, s2, s3) ""
#define STORE_LANES(s0, s1, s2, s3) "st1 {v" #s0 ".4s-v" #s3 ".4s}, [%[to]], #64\n"
#define SUM_TWO(s0, s1, s2, s3)                                \
  "addp v" #s0 ".4s, v" #s0 ".4s, v" #s1 ".4s\n"                \
  "addp v" #s2 ".4s, v" #s2 ".4s, v" #s3 ".4s\n"
#define SUM_FOUR(s0, s1, s2, s3) "addp v" #s0 ".4s, v" #s0 ".4s, v" #s2 ".4s\n"
#define STORE_SUMS(s0, s1, s2, s3) "str q" #s0 ", [%[to]], #64\n"
#define LANES KEEP_LANES, KEEP_LANES, STORE_LANES
#define SUMS SUM_TWO, SUM_FOUR, STORE_SUMS

#define LOAD_BLOCK                                             \
  "ld1 {v24.16b-v27.16b}, [%[w]], #64\n"                        \
  "ld1 {v28.16b-v31.16b}, [%[w]]\n"
#define ROW_OF_BLOCK "ld1 {v0.16b-v3.16b}, [%[rows]], %[row_bytes]\n"
#define ROW_OF_TAIL "ld1 {v0.16b-v1.16b}, [%[rows]], %[row_bytes]\n"

// One pixel's lanes into v4 to v7 and the next one's into v12 to v15. Each is stored after the
// other's loads, also the one before the first.
#define FIRST ADD(4, 5, 6, 7)
#define SECOND ADD(12, 13, 14, 15)
#define LOOP(...) LOOP_OF(__VA_ARGS__)
#define LOOP_OF(load_more, row, first, second, two, four, store) \
  __asm__ volatile(                                             \
      "ld1 {v16.16b-v19.16b}, [%[w]], #64\n"                    \
      "ld1 {v20.16b-v23.16b}, [%[w]], #64\n"                    \
      load_more                                                 \
      "tbnz %[count], #0, 2f\n"                                 \
      "1:\n"                                                    \
      row                                                       \
      two(12, 13, 14, 15)                                       \
      "ld1 {v4.4s-v7.4s}, [%[from]], %[from_bytes]\n"           \
      four(12, 13, 14, 15)                                      \
      first                                                     \
      store(12, 13, 14, 15)                                     \
      "2:\n"                                                    \
      row                                                       \
      two(4, 5, 6, 7)                                           \
      "ld1 {v12.4s-v15.4s}, [%[from]], %[from_bytes]\n"         \
      four(4, 5, 6, 7)                                          \
      "subs %[count], %[count], #2\n"                           \
      second                                                    \
      store(4, 5, 6, 7)                                         \
      "b.gt 1b\n"                                               \
      two(12, 13, 14, 15)                                       \
      four(12, 13, 14, 15)                                      \
      store(12, 13, 14, 15)                                     \
      : [w] "+&r"(w), [rows] "+&r"(rows), [count] "+&r"(count), [from] "+&r"(from), [to] "+&r"(to) \
      : [row_bytes] "r"(row_bytes), [from_bytes] "r"(from_bytes)                                   \
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",  \
        "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", \
        "v25", "v26", "v27", "v28", "v29", "v30", "v31")

struct SmullBlockLoops {
  SmullLoop lanes, sums;  // what they store
};
#define BLOCK_LOOPS(first, second)                                                         \
  {SMULL_LOOP { LOOP(LOAD_BLOCK, ROW_OF_BLOCK, first, second, LANES); },      \
   SMULL_LOOP { LOOP(LOAD_BLOCK, ROW_OF_BLOCK, first, second, SUMS); }},
#define TAIL_LOOP(first, second) SMULL_LOOP { LOOP("", ROW_OF_TAIL, first, second, SUMS); },

#define CHAINS_44(add, a, b, c, d, e, f, g, h) CHAIN_4(add, a, b, c, d) CHAIN_4(add, e, f, g, h)
#define CHAINS_332(add, a, b, c, d, e, f, g, h) \
  CHAIN_3(add, a, b, c) CHAIN_3(add, d, e, f) CHAIN_2(add, g, h)
#define CHAINS_22(add, a, b, c, d) CHAIN_2(add, a, b) CHAIN_2(add, c, d)
#define CHAINS_2222(add, a, b, c, d, e, f, g, h) \
  CHAINS_22(add, a, b, c, d) CHAINS_22(add, e, f, g, h)
#define FOURS(...) BLOCK_LOOPS(CHAINS_44(FIRST, __VA_ARGS__), CHAINS_44(SECOND, __VA_ARGS__))
#define THREES(...) BLOCK_LOOPS(CHAINS_332(FIRST, __VA_ARGS__), CHAINS_332(SECOND, __VA_ARGS__))
#define TWOS(...) BLOCK_LOOPS(CHAINS_2222(FIRST, __VA_ARGS__), CHAINS_2222(SECOND, __VA_ARGS__))
constexpr SmullBlockLoops kSmullBlockLoops[] = {SMULL_BLOCK_CHAINS(FOURS, THREES, TWOS)};
#undef TWOS
#define FOUR(...) TAIL_LOOP(CHAIN_4(FIRST, __VA_ARGS__), CHAIN_4(SECOND, __VA_ARGS__))
#define TWOS(...) TAIL_LOOP(CHAINS_22(FIRST, __VA_ARGS__), CHAINS_22(SECOND, __VA_ARGS__))
constexpr SmullLoop kSmullTailLoops[] = {SMULL_TAIL_CHAINS(FOUR, TWOS)};
#undef FIRST
#undef SECOND
#undef LOOP
#undef FOUR
#undef FOURS
#undef THREES
#undef TWOS
// clang-format on

// The first of `chains` that cannot overflow with the weights of a block; the last never do.
inline uint8_t smull_loop_of(const int8_t* w, size_t registers, const SmullChains* chains) {
  constexpr size_t kHalf = kSmullLength / 2, kLanes = kSmullChannels * kHalf;
  constexpr uint16_t kMost = 255;
  uint16_t magnitudes[2 * kSmullBlock][kLanes];  // [halves][channels of 8 lanes]
  for (size_t i = 0; i < registers * 2 * kLanes; ++i) {
    const size_t half = i / (2 * kLanes) * 2 + i / kHalf % 2, channel = i / kSmullLength % 4;
    magnitudes[half][channel * kHalf + i % kHalf] = static_cast<uint16_t>(w[i] < 0 ? -w[i] : w[i]);
  }
  for (uint8_t loop = 0;; ++loop) {
    const size_t* half = chains[loop].halves;
    uint16_t most = 0;
    for (const size_t length : chains[loop].lengths) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        uint16_t sum = 0;
        for (size_t i = 0; i < length; ++i)
          sum = static_cast<uint16_t>(sum + magnitudes[half[i]][lane]);
        most = sum > most ? sum : most;
      }
      half += length;
    }
    if (most <= kMost) return loop;
  }
}

// For four channels' packed weights, [steps][4 channels][16], the loop that each block takes.
inline void smull_choose(const int8_t* w, size_t steps, uint8_t* loops) {
  for (size_t step = 0; step < steps; step += kSmullBlock) {
    const int8_t* block = w + step * kSmullChannels * kSmullLength;
    *loops++ = steps - step < kSmullBlock ? smull_loop_of(block, kSmullTail, kSmullTailChains)
                                          : smull_loop_of(block, kSmullBlock, kSmullBlockChains);
  }
}

}  // namespace
}  // namespace pyedge
