// Where pixels take their colour from: the places of their neighbours in the photo and the weights of these, and the
// weighing itself.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/shade_vertices.h"

namespace fastface {
inline namespace FF_ISA {
namespace shading {

constexpr float kWeightOne = 16384.0f;  // 16-bit weights: their error is a hundredth of a grey level
constexpr int kFoldBlockBits = 3;
static_assert(kShadeFoldBlock == 1 << kFoldBlockBits, "a block is found by a shift");
constexpr std::int64_t kFoldMargin = 3;  // a pixel's neighbours reach this far out of the folds' box

// Some pixels' 4 x 4 neighbours.
template <std::int64_t kRoom>
struct Taps {
  std::int32_t tap[kRoom];      // the first of them, as a pixel of the bordered image
  float across[4 * kRoom];      // weights of the columns, with the gain and over kWeightOne; pixel by pixel
  std::int32_t down[2][kRoom];  // weights of rows 0 and 1, and of 2 and 3, in 16 bits each
};

FF_INLINE VecInt weight_pair(VecFloat low, VecFloat high) {
  const auto whole = [](VecFloat w) { return truncated(w * kWeightOne + 65536.5f) - 65536; };
  return (whole(low) & 0xffff) | (whole(high) << 16);
}

// Log gain of the folds where the lanes `near` read them.
inline VecFloat folds_at(const Frame& frame, std::uint32_t near, VecInt tap_row, VecInt tap_column,
                         const VecFloat (&across)[4], const VecFloat (&down)[4]) {
  const std::int64_t *box = frame.fold_box, stride = box[3] - box[1] + 2 * kFoldMargin;
  VecFloat gain = {};
  for (; near != 0; near &= near - 1) {
    const int i = __builtin_ctz(near);
    const std::int64_t r = tap_row[i], c = tap_column[i];
    if (frame.fold_block[(r >> kFoldBlockBits) * frame.blocks_across + (c >> kFoldBlockBits)] == 0) continue;
    const float* tap = frame.fold + (r - box[0] + kFoldMargin) * stride + (c - box[1] + kFoldMargin);
    Four sum = {};
    for (int k = 0; k < 4; ++k) sum += down[k][i] * load<4>(tap + k * stride);
    gain[i] = across[0][i] * sum[0] + across[1][i] * sum[1] + across[2][i] * sum[2] + across[3][i] * sum[3];
  }
  return gain;
}

FF_INLINE VecInt within(VecInt start, std::int64_t first, std::int64_t end) {
  return (start + 3 >= static_cast<std::int32_t>(first)) & (start < static_cast<std::int32_t>(end));
}

// Finds the neighbours of kLanes pixels that take their colour from (x, y), from number i on. The log gain of folds comes
// to the one given, which counts on skin alone; returns it.
template <std::int64_t kRoom>
FF_INLINE VecFloat place_taps(const Frame& frame, VecFloat x, VecFloat y, VecFloat log_gain, VecInt skin,
                              std::int64_t i, Taps<kRoom>& taps) {
  const std::int32_t columns = static_cast<std::int32_t>(frame.width + 2 * kShadeBorder);
  const std::int64_t* box = frame.fold_box;
  VecFloat t, across[4], down[4];
  const VecInt column = tap_start<VecFloat>(x, static_cast<float>(frame.width), t);
  cubic_weights(t, across);
  const VecInt line = tap_start<VecFloat>(y, static_cast<float>(frame.height), t);
  cubic_weights(t, down);
  if (box[0] < box[2]) {
    const std::uint32_t near = lane_bits(skin & within(line, box[0], box[2]) & within(column, box[1], box[3]));
    if (near != 0) log_gain += folds_at(frame, near, line, column, across, down);
  }
  log_gain = skin ? log_gain : VecFloat{};
  VecFloat gain = splat<VecFloat>(1.0f / kWeightOne);
  if (lane_bits(log_gain != 0.0f) != 0) gain *= exponential(log_gain);
  store(taps.tap + i, line * columns + column);
  store_records(taps.across + 4 * i, across[0] * gain, across[1] * gain, across[2] * gain, across[3] * gain);
  for (int k = 0; k < 2; ++k) store(taps.down[k] + i, weight_pair(down[2 * k], down[2 * k + 1]));
  return log_gain;
}

#if !defined(__AVX512F__)
// Four rows of four pixels of four channels, each row by its weight: a vector of channels for every column. Bytes lie
// beside those of the row below, so that one instruction multiplies both and adds them.
FF_INLINE void weigh_rows(const std::uint8_t* tap, std::int64_t stride, const std::int32_t (&pair)[2], Four (&out)[4]) {
#if defined(__AVX2__)
  for (int half = 0; half < 2; ++half) {
    const auto rows = [&](int k) {
      const std::uint8_t* from = tap + 2 * k * stride + 16 * half;
      const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      return _mm256_madd_epi16(wide, _mm256_set1_epi32(pair[k]));
    };
    const VecFloat real = reinterpret_cast<VecFloat>(_mm256_cvtepi32_ps(_mm256_add_epi32(rows(0), rows(1))));
    __builtin_memcpy(out + 2 * half, &real, sizeof(real));
  }
#elif defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  for (int half = 0; half < 2; ++half) {
    __m128i sum[2] = {zero, zero};
    for (int k = 0; k < 2; ++k) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tap + 2 * k * stride + 16 * half));
      const __m128i weights = _mm_set1_epi32(pair[k]);
      sum[0] = _mm_add_epi32(sum[0], _mm_madd_epi16(_mm_unpacklo_epi8(bytes, zero), weights));
      sum[1] = _mm_add_epi32(sum[1], _mm_madd_epi16(_mm_unpackhi_epi8(bytes, zero), weights));
    }
    for (int i = 0; i < 2; ++i) out[2 * half + i] = reinterpret_cast<Four>(_mm_cvtepi32_ps(sum[i]));
  }
#else
  for (int column = 0; column < 4; ++column) {
    out[column] = Four{};
    for (int k = 0; k < 2; ++k) {
      const std::uint8_t* pixel = tap + 2 * k * stride + 8 * column;
      const float first = static_cast<float>(static_cast<std::int16_t>(pair[k] & 0xffff));
      const float second = static_cast<float>(pair[k] >> 16);
      for (int c = 0; c < 4; ++c)
        out[column][c] += first * static_cast<float>(pixel[2 * c]) + second * static_cast<float>(pixel[2 * c + 1]);
    }
  }
#endif
}
#endif

#if defined(__AVX512F__)
// A pixel's four columns of four channels, each by its weight.
FF_INLINE VecFloat weigh_columns(const std::uint8_t* tap, std::int64_t stride, const std::int32_t (&pair)[2],
                                 const float* across) {
  const auto rows = [&](int k) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tap + 2 * k * stride));
    return _mm512_madd_epi16(_mm512_cvtepu8_epi16(bytes), _mm512_set1_epi32(pair[k]));
  };
  const VecInt sum = reinterpret_cast<VecInt>(_mm512_add_epi32(rows(0), rows(1)));
  // Forms with a mask: compilers take the others' undefined lanes for used.
  const __m512i spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  const __m512 four = _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(across));
  const VecFloat weights = reinterpret_cast<VecFloat>(_mm512_maskz_permutevar_ps(0xffff, four, spread));
  return __builtin_convertvector(sum, VecFloat) * weights;
}
#endif

// The colour of pixel i: (column 0 + column 1) + (column 2 + column 3).
template <std::int64_t kRoom>
FF_INLINE Four sample(const std::uint8_t* image, std::int64_t stride, const Taps<kRoom>& taps, std::int64_t i) {
  const std::uint8_t* tap = image + 8 * static_cast<std::int64_t>(taps.tap[i]);
  const std::int32_t pair[2] = {taps.down[0][i], taps.down[1][i]};
  const float* across = taps.across + 4 * i;
  Four column[4];
#if defined(__AVX512F__)
  const VecFloat weighed = weigh_columns(tap, stride, pair, across);
  std::memcpy(column, &weighed, sizeof(weighed));
#else
  weigh_rows(tap, stride, pair, column);
  for (int k = 0; k < 4; ++k) column[k] *= across[k];
#endif
  return (column[0] + column[1]) + (column[2] + column[3]);
}

// By the two instructions that it takes; compilers go through memory.
FF_INLINE void store_three(float* to, Four colour) {
  using Pair = Vec<double, 2>;
  const double first = bits_as<Pair>(colour)[0];
  std::memcpy(to, &first, sizeof(first));
  to[2] = colour[2];
}

}  // namespace shading
}  // namespace FF_ISA
}  // namespace fastface
