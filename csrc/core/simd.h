// Vectors of FF_LANES floats or ints by the compiler's vector extensions: one source for every instruction set.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__F16C__) || defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/macros.h"

#if defined(__AVX512F__)
#define FF_LANES 16
#elif defined(__AVX2__)
#define FF_LANES 8
#else
#define FF_LANES 4
#endif

namespace fastface {
inline namespace FF_ISA {

constexpr int kLanes = FF_LANES;

template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * N)));
  typedef T unaligned __attribute__((vector_size(sizeof(T) * N), aligned(alignof(T)), may_alias));
};

template <class T, int N>
using Vec = typename VectorOf<T, N>::type;

using VecFloat = Vec<float, kLanes>;
using VecInt = Vec<std::int32_t, kLanes>;

template <int N = kLanes, class T>
FF_INLINE Vec<T, N> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T, N>::unaligned*>(from);
}

template <int N = kLanes, class T>
FF_INLINE void store(T* to, Vec<T, N> value) {
  *reinterpret_cast<typename VectorOf<T, N>::unaligned*>(to) = value;
}

template <class V, class S>
FF_INLINE V splat(S value) {
  return V{} + value;
}

// Lanes I... of the 2 N lanes of a and b together.
template <class V, int... I>
FF_INLINE V permute(V a, V b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, I...);
#else
  typedef std::int32_t Index __attribute__((vector_size(sizeof(std::int32_t) * sizeof...(I))));
  return __builtin_shuffle(a, b, Index{I...});
#endif
}

namespace lanes {

template <int (*Rule)(int), int... I>
std::integer_sequence<int, Rule(I)...> apply(std::integer_sequence<int, I...>);
template <int N, int (*Rule)(int)>
using Pattern = decltype(apply<Rule>(std::make_integer_sequence<int, N>{}));

template <int N>
constexpr int zip_low(int i) {
  return i / 2 + (i % 2) * N;
}
template <int N>
constexpr int zip_high(int i) {
  return N / 2 + i / 2 + (i % 2) * N;
}
constexpr int even(int i) { return 2 * i; }
constexpr int odd(int i) { return 2 * i + 1; }

// Three planes x, y, z against N interleaved triples, which span three vectors 0, 1, 2. Lane i of vector v of the
// triples is coordinate (v N + i) % 3 of triple (v N + i) / 3.
constexpr int N = kLanes;

template <int V>
constexpr int triple_from_xy(int i) {
  const int at = V * N + i;
  return at % 3 == 0 ? at / 3 : at % 3 == 1 ? N + at / 3 : 0;
}
template <int V>
constexpr int triple_add_z(int i) {
  const int at = V * N + i;
  return at % 3 == 2 ? N + at / 3 : i;
}
template <int C>
constexpr int plane_from_01(int i) {
  const int at = 3 * i + C;
  return at < 2 * N ? at : 0;
}
template <int C>
constexpr int plane_add_2(int i) {
  const int at = 3 * i + C;
  return at < 2 * N ? i : N + at - 2 * N;
}

template <int (*Rule)(int)>
using Whole = Pattern<N, Rule>;

}  // namespace lanes

// a0 b0 a1 b1 … from a0 a1 … and b0 b1 …
template <class V>
FF_INLINE void zip(V a, V b, V& low, V& high) {
  constexpr int kCount = static_cast<int>(sizeof(V) / sizeof(a[0]));
  low = permute(a, b, lanes::Pattern<kCount, lanes::zip_low<kCount>>{});
  high = permute(a, b, lanes::Pattern<kCount, lanes::zip_high<kCount>>{});
}

template <class V>
FF_INLINE void unzip(V low, V high, V& even, V& odd) {
  constexpr int kCount = static_cast<int>(sizeof(V) / sizeof(low[0]));
  even = permute(low, high, lanes::Pattern<kCount, lanes::even>{});
  odd = permute(low, high, lanes::Pattern<kCount, lanes::odd>{});
}

FF_INLINE void store_triples(float* to, const VecFloat (&plane)[3]) {
  using namespace lanes;
  const auto part = [&](auto from_xy, auto add_z) {
    return permute(permute(plane[0], plane[1], from_xy), plane[2], add_z);
  };
  store(to, part(Whole<triple_from_xy<0>>{}, Whole<triple_add_z<0>>{}));
  store(to + N, part(Whole<triple_from_xy<1>>{}, Whole<triple_add_z<1>>{}));
  store(to + 2 * N, part(Whole<triple_from_xy<2>>{}, Whole<triple_add_z<2>>{}));
}

FF_INLINE void load_triples(const float* from, VecFloat (&plane)[3]) {
  using namespace lanes;
  const VecFloat v0 = load(from), v1 = load(from + N), v2 = load(from + 2 * N);
  plane[0] = permute(permute(v0, v1, Whole<plane_from_01<0>>{}), v2, Whole<plane_add_2<0>>{});
  plane[1] = permute(permute(v0, v1, Whole<plane_from_01<1>>{}), v2, Whole<plane_add_2<1>>{});
  plane[2] = permute(permute(v0, v1, Whole<plane_from_01<2>>{}), v2, Whole<plane_add_2<2>>{});
}

// Bit i is set where lane i of a comparison's result is.
FF_INLINE std::uint32_t lane_bits(VecInt lanes) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(lanes), reinterpret_cast<__m512i>(lanes));
#elif defined(__AVX2__)
  return static_cast<std::uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(lanes)));
#elif defined(__SSE2__)
  return static_cast<std::uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(lanes)));
#else
  std::uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= static_cast<std::uint32_t>(lanes[i] != 0) << i;
  return bits;
#endif
}

// Bytes to floats. Compilers take a generic conversion to pieces, byte by byte.
FF_INLINE VecFloat load_bytes(const std::uint8_t* from) {
#if defined(__AVX512F__)
  const __m512i wide = _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return __builtin_convertvector(reinterpret_cast<VecInt>(wide), VecFloat);
#elif defined(__AVX2__)
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  return __builtin_convertvector(reinterpret_cast<VecInt>(wide), VecFloat);
#elif defined(__SSE2__)
  std::int32_t four;
  __builtin_memcpy(&four, from, sizeof(four));
  const __m128i zero = _mm_setzero_si128();
  const __m128i wide = _mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero);
  return __builtin_convertvector(reinterpret_cast<VecInt>(wide), VecFloat);
#else
  return __builtin_convertvector(__builtin_convertvector(load<kLanes>(from), VecInt), VecFloat);
#endif
}

// Half precision to single; finite values only where the hardware has no instruction for it.
FF_INLINE VecFloat load_real(const float* from) { return load(from); }
FF_INLINE VecFloat load_real(const std::uint16_t* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<VecFloat>(
      _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__F16C__)
  return reinterpret_cast<VecFloat>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  const VecInt bits = __builtin_convertvector(load<kLanes>(from), VecInt);
  const VecInt magnitude = (bits & 0x7fff) << 13;
  const VecInt sign = (bits & 0x8000) << 16;
  constexpr float kRebias =
      5.192296858534828e33f;  // 2^112: single's exponent bias less half's; right for subnormals too
  const VecFloat scaled = reinterpret_cast<VecFloat>(magnitude) * kRebias;
  return reinterpret_cast<VecFloat>(reinterpret_cast<VecInt>(scaled) | sign);
#endif
}

}  // namespace FF_ISA
}  // namespace fastface
