// i8: smmla, 32 multiply-adds.
#include "kernels/peak/arm_products.h"
#include "kernels/peak/peak.h"

namespace pyedge {

double peak_i8_i8mm(size_t rounds) {
  return add_products<32>(
      rounds, [](int32x4_t sum, int8x16_t a, int8x16_t b) { return vmmlaq_s32(sum, a, b); });
}

}  // namespace pyedge
