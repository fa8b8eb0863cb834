// Half precision to single, one number at a time; finite values.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

#include "core/macros.h"

namespace fastface {
inline namespace FF_ISA {

FF_HD float real_of(float value) { return value; }

FF_HD float real_of(std::uint16_t bits) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(bits));
#else
  constexpr float kRebias = 5.192296858534828e33f;  // 2^112: the exponents' biases differ by it; right for subnormals too
  const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fff) << 13;
  float scaled;
  __builtin_memcpy(&scaled, &magnitude, sizeof(scaled));
  scaled *= kRebias;
  return (bits & 0x8000) != 0 ? -scaled : scaled;
#endif
}

}  // namespace FF_ISA
}  // namespace fastface
