// How the tile registers of AMX are shaped: data, for code of any instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyedge {

// The operand of ldtilecfg.
struct AmxConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(AmxConfig) == 64, "");

}  // namespace pyedge
