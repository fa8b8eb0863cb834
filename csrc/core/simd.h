// Vectors of FF_LANES floats or ints by the compiler's vector extensions: one source for every instruction set.
#pragma once

#include <cstdint>
#include <type_traits>
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

template <int N>
FF_INLINE Vec<std::int32_t, N> ramp() {
  Vec<std::int32_t, N> lane;
  for (int i = 0; i < N; ++i) lane[i] = i;
  return lane;
}

// Which of N lanes: bits of a mask register where there are such, else lanes of all ones or zeros.
#if defined(__AVX512VL__)
template <int N>
using Lanes = std::conditional_t<N == 8, __mmask8, Vec<std::int32_t, N>>;
#else
template <int N>
using Lanes = Vec<std::int32_t, N>;
#endif

template <int N>
FF_INLINE Lanes<N> lanes_from_zero_up(Vec<std::int32_t, N> v) {
#if defined(__AVX512VL__)
  if constexpr (N == 8) return static_cast<__mmask8>(~_mm256_movepi32_mask(reinterpret_cast<__m256i>(v)));
  else
#endif
    return v >= 0;
}

template <int N>
FF_INLINE Lanes<N> lanes_less(Vec<float, N> a, Vec<float, N> b) {
#if defined(__AVX512VL__)
  if constexpr (N == 8)
    return _mm256_cmp_ps_mask(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_LT_OQ);
  else
#endif
    return a < b;
}

template <int N>
FF_INLINE Lanes<N> lanes_equal(Vec<float, N> a, Vec<float, N> b) {
#if defined(__AVX512VL__)
  if constexpr (N == 8)
    return _mm256_cmp_ps_mask(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_EQ_OQ);
  else
#endif
    return a == b;
}

template <int N>
FF_INLINE bool any_lane(Lanes<N> lanes) {
#if defined(__AVX512VL__)
  if constexpr (N == 8) return lanes != 0;
  else
#endif
  {
    std::int32_t any = 0;
    for (int i = 0; i < N; ++i) any |= lanes[i];
    return any != 0;
  }
}

// Stores some lanes; the others stay as they are, though they may be read and written back.
template <int N, class T>
FF_INLINE void store_where(T* to, Lanes<N> where, Vec<T, N> value) {
#if defined(__AVX512VL__)
  if constexpr (N == 8)
    _mm256_mask_storeu_epi32(to, where, reinterpret_cast<__m256i>(value));
  else
#endif
    store<N>(to, where ? value : load<N>(to));
}

// Stores some of N pairs, given as the first and the second of each.
template <int N>
FF_INLINE void store_pairs_where(float* to, Lanes<N> where, Vec<float, N> first, Vec<float, N> second) {
  if constexpr (N == 1) {
    to[0] = where[0] != 0 ? first[0] : to[0];
    to[1] = where[0] != 0 ? second[0] : to[1];
  } else {
    Vec<float, N> low, high;
    zip(first, second, low, high);
#if defined(__AVX512VL__)
    if constexpr (N == 8) {
      const std::uint32_t both = _pdep_u32(where, 0x5555u) * 3u;
      _mm256_mask_storeu_ps(to, static_cast<__mmask8>(both), reinterpret_cast<__m256>(low));
      _mm256_mask_storeu_ps(to + N, static_cast<__mmask8>(both >> 8), reinterpret_cast<__m256>(high));
    } else
#endif
    {
      Vec<std::int32_t, N> low_where, high_where;
      zip(where, where, low_where, high_where);
      store<N>(to, low_where ? low : load<N>(to));
      store<N>(to + N, high_where ? high : load<N>(to + N));
    }
  }
}

// Puts the lanes that are set in `bits` side by side; whole vectors are written. Returns how many there are.
template <class V, class T>
FF_INLINE std::int32_t append_lanes(T* to, V lanes, std::uint32_t bits) {
  static_assert(sizeof(T) == 4 && sizeof(V) == sizeof(VecInt), "lanes of 32 bits");
#if defined(__AVX512F__)
  const __mmask16 chosen = static_cast<__mmask16>(bits);
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(chosen, reinterpret_cast<__m512i>(lanes)));
  return __builtin_popcount(bits);
#else
  std::int32_t count = 0;
  for (int i = 0; i < kLanes; ++i) {
    to[count] = lanes[i];
    count += static_cast<std::int32_t>(bits >> i & 1u);
  }
  return count;
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
