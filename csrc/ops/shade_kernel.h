// The maths of shade: irradiance, the light in the mouth, Catmull-Rom weights, sRGB; for scalars or vectors.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/macros.h"

namespace fastface {
inline namespace FF_ISA {

constexpr std::int32_t kSkin = 0, kLeftEye = 1, kRightEye = 2, kPainted = 3;  // layers

constexpr float kGainLimit = 0.5f;   // log gain on sRGB values
constexpr float kHairPx = 0.01f;     // motion below this is none
constexpr float kGainLeast = 1e-3f;  // log gain below this is none
constexpr float kLitLeast = 0.15f;
constexpr float kPaintLitMost = 1.0f;  // wet, translucent parts do not catch the light as skin does

// ---- vectors and scalars alike

template <class F>
struct IntegerOf {
  using type = decltype(F{} < F{});
};
template <>
struct IntegerOf<float> {
  using type = std::int32_t;
};
template <class F>
using Integer = typename IntegerOf<F>::type;

template <class F>
FF_HD Integer<F> truncated(F x) {
#if defined(__CUDACC__)
  return static_cast<std::int32_t>(x);
#else
  if constexpr (std::is_same<F, float>::value) {
    return static_cast<std::int32_t>(x);
  } else {
    return __builtin_convertvector(x, Integer<F>);
  }
#endif
}

template <class F>
FF_HD F as_real(Integer<F> i) {
#if defined(__CUDACC__)
  return static_cast<float>(i);
#else
  if constexpr (std::is_same<F, float>::value) {
    return static_cast<float>(i);
  } else {
    return __builtin_convertvector(i, F);
  }
#endif
}

template <class To, class From>
FF_HD To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

// `low` where x is NaN.
template <class F>
FF_HD F clamped(F x, float low, float high) {
  const F lo = F{} + low, hi = F{} + high;
  x = x > lo ? x : lo;
  return x < hi ? x : hi;
}

template <class F>
FF_HD F absolute(F x) {
  return x < F{} ? -x : x;
}

template <class F>
FF_HD F larger(F a, F b) {
  return a > b ? a : b;
}

// For x above 0; within 1e-7 of the logarithm. With s = (m - 1) / (m + 1), log m = 2 (s + s^3/3 + s^5/5 + ...).
template <class F>
FF_HD F natural_log(F x) {
  using I = Integer<F>;
  constexpr std::int32_t kRootHalf = 0x3f3504f3;  // bits of sqrt(1/2)
  const I offset = bits_as<I>(x) - kRootHalf;
  const I exponent = offset >> 23;
  const F m = bits_as<F>(static_cast<I>((offset & 0x7fffff) + kRootHalf));
  const F s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  const F series = s2 * (0.66666667f + s2 * (0.4f + s2 * (0.28571429f + s2 * 0.22222222f)));
  return as_real<F>(exponent) * 0.69314718f + s * (2.0f + series);
}

// Within 3e-6 of e^x, relative; bounded outside -80 ... 80. 2^f by its Taylor series on -0.5 ... 0.5.
template <class F>
FF_HD F exponential(F x) {
  using I = Integer<F>;
  const F y = clamped(x, -80.0f, 80.0f) * 1.44269504f;
  const I whole = truncated(y + 128.5f) - 128;
  const F f = y - as_real<F>(whole);
  const F p = 1.0f + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * (0.00961813f + f * 0.00133336f))));
  return p * bits_as<F>(static_cast<I>((whole + 127) << 23));
}

// ---- light

// A quadratic of the unit normal (Ramamoorthi & Hanrahan 2001, equation 12) in the order of fastface/lighting.py.
template <class F>
FF_HD F irradiance(const float* light, F x, F y, F z) {
  const F sum = light[0] + light[1] * y + light[2] * z + light[3] * x + light[4] * (x * y) + light[5] * (y * z) +
                light[6] * (3.0f * z * z - 1.0f) + light[7] * (x * z) + light[8] * (x * x - y * y);
  return clamped(sum, kLitLeast, 1e6f);
}

template <class F>
FF_HD F smoothstep(float low, float high, F x) {
  const F t = clamped((x - low) * (1.0f / (high - low)), 0.0f, 1.0f);
  return t * t * (3.0f - 2.0f * t);
}

// The lips where a point of the mouth looks out between them.
template <class F>
struct Opening {
  F t;                       // along the line between the corners, 0 ... 1 within
  F top_x, top_y;            // the upper rim there
  F gap_x, gap_y, height;    // from it to the lower one, and how long that is
  F rim_z;                   // the middle of both
};

constexpr float kLipThin = 4.0f;                         // mm of opening that thin lips let through
constexpr float kShadowLow = -1.0f, kShadowHigh = 4.0f;  // mm below the upper rim
constexpr float kShadowDark = 0.6f;
constexpr float kCornerOut = -0.1f, kCornerIn = 0.12f;  // of the mouth's width
constexpr float kCornerDark = 0.3f;
constexpr float kScattered = 0.12f;  // light that gets everywhere

// Share of the light that reaches a point behind the lips: form factor of a strip, the upper lip's soft shadow, and
// the dark beyond the corners. `root` is the square root.
template <class F, class Root>
FF_HD F mouth_light(const Opening<F>& o, F x, F y, F z, Root root) {
  const F below = ((x - o.top_x) * o.gap_x + (y - o.top_y) * o.gap_y) / larger(o.height, F{} + 1e-3f);
  const F depth = larger(z - o.rim_z, F{});
  const F s = 0.5f * o.height + kLipThin;
  const F open = s / root(s * s + depth * depth);
  const F shadow = kShadowDark + (1.0f - kShadowDark) * smoothstep(kShadowLow, kShadowHigh, below);
  const F inside = smoothstep(kCornerOut, kCornerIn, o.t) * smoothstep(kCornerOut, kCornerIn, F(1.0f - o.t));
  return kScattered + (1.0f - kScattered) * open * shadow * (kCornerDark + (1.0f - kCornerDark) * inside);
}

// ---- colour

// Catmull-Rom weights of four neighbours, t in [0, 1): exact at 0.
template <class F>
FF_HD void cubic_weights(F t, F (&w)[4]) {
  const F t2 = t * t, t3 = t2 * t;
  w[0] = -0.5f * t + t2 - 0.5f * t3;
  w[1] = 1.0f - 2.5f * t2 + 1.5f * t3;
  w[2] = 0.5f * t + 2.0f * t2 - 1.5f * t3;
  w[3] = -0.5f * t2 + 0.5f * t3;
}

// Where four neighbours begin in an image whose border is repeated twice, and how far beyond the second one x is.
template <class F>
FF_HD Integer<F> tap_start(F x_px, float size, F& t) {
  const F x = clamped(x_px, 0.0f, size) + 0.5f;  // one more than the reference's, so that it truncates downwards
  const Integer<F> start = truncated(x);
  t = x - as_real<F>(start);
  return start;
}

// Linear light to grey levels 0 ... 255 (IEC 61966-2-1).
template <class F>
FF_HD F encode_srgb(F linear) {
  const F x = clamped(linear, 0.0f, 1.0f);
  const F root = exponential(natural_log(clamped(x, 1e-3f, 1.0f)) * (1.0f / 2.4f));
  return 255.0f * (x <= F{} + 0.0031308f ? 12.92f * x : 1.055f * root - 0.055f);
}

}  // namespace FF_ISA
}  // namespace fastface
