// The maths of rasterize: snapping, edge functions, coverage and interpolation, for scalars or vectors.
// Pineda, A Parallel Algorithm for Polygon Rasterization, SIGGRAPH 1988.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace fastface {
inline namespace FF_ISA {

constexpr int kSubpixelBits = 8;
constexpr std::int32_t kSubpixels = 1 << kSubpixelBits;
constexpr std::int32_t kHalfPixel = kSubpixels / 2;

// First and last pixel whose centre lies in [low, high], in subpixels.
template <class I>
FF_HD I first_centre(I low) {
  return (low + (kHalfPixel - 1)) >> kSubpixelBits;
}
template <class I>
FF_HD I last_centre(I high) {
  return (high - kHalfPixel) >> kSubpixelBits;
}
template <class I>
FF_HD I centre(I pixel) {
  return pixel * kSubpixels + kHalfPixel;
}

// The directed edge a -> b as w(p) = per_x (p.x - a.x) + per_y (p.y - a.y), positive on the inside of a triangle whose
// doubled area is positive in image coordinates (y down).
template <class I>
struct Edge {
  I per_x, per_y;
};

template <class I>
FF_HD I doubled_area(I ax, I ay, I bx, I by, I cx, I cy) {
  return (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
}

template <class I>
FF_HD Edge<I> edge_between(I ax, I ay, I bx, I by, I sign) {
  return {(ay - by) * sign, (bx - ax) * sign};
}

template <class I>
FF_HD I edge_at(const Edge<I>& edge, I ax, I ay, I px, I py) {
  return edge.per_x * (px - ax) + edge.per_y * (py - ay);
}

// 0 for a left or top edge, which owns the centres on it, else -1: w + bias >= 0 is inside.
template <class I>
FF_HD I edge_bias(const Edge<I>& edge) {
  return ((edge.per_x > 0) | ((edge.per_x == 0) & (edge.per_y > 0))) ? I{} : I{} - 1;
}

#if defined(__CUDACC__)
#define FF_PIN(value)
#elif defined(__x86_64__) || defined(__i386__)
#define FF_PIN(value) asm("" : "+x"(value))
#elif defined(__aarch64__)
#define FF_PIN(value) asm("" : "+w"(value))
#else
#define FF_PIN(value)
#endif

// A product that no compiler fuses with a sum it goes into.
template <class F>
FF_HD F rounded(F product) {
  if constexpr (sizeof(F) == sizeof(float)) {
    float one;
    __builtin_memcpy(&one, &product, sizeof(one));
    FF_PIN(one);
    __builtin_memcpy(&product, &one, sizeof(one));
  } else {
    FF_PIN(product);
  }
  return product;
}
#undef FF_PIN

// Rounded step by step, so that depths compare alike everywhere.
template <class F, class Z>
FF_HD F interpolate(F b1, F b2, Z z0, Z dz1, Z dz2) {
  return z0 + (rounded<F>(b1 * dz1) + rounded<F>(b2 * dz2));
}

// A triangle against single pixels, in integers of type I. Equal to what a schedule that steps from pixel to pixel finds.
template <class I>
struct Coverage {
  I x[3], y[3];  // corners, in subpixels
  Edge<I> edge[3];
  I bias[3];
  float z0, dz1, dz2, inverse_area;
  bool visible;

  FF_HD Coverage(const I (&corner_x)[3], const I (&corner_y)[3], const float (&z)[3], bool cull) {
    for (int i = 0; i < 3; ++i) {
      x[i] = corner_x[i];
      y[i] = corner_y[i];
    }
    const I area = doubled_area(x[0], y[0], x[1], y[1], x[2], y[2]);
    const I sign = area > 0 ? I{1} : I{-1};
    for (int i = 0; i < 3; ++i) {
      const int from = (i + 1) % 3, to = (i + 2) % 3;
      edge[i] = edge_between<I>(x[from], y[from], x[to], y[to], sign);
      bias[i] = edge_bias(edge[i]);
    }
    visible = area != 0 && !(cull && area > 0);
    inverse_area = 1.0f / static_cast<float>(static_cast<I>(area * sign));
    z0 = z[0];
    dz1 = z[1] - z[0];
    dz2 = z[2] - z[0];
  }

  FF_HD I edge_value(int i, I px, I py) const {
    const int from = (i + 1) % 3;
    return edge_at<I>(edge[i], x[from], y[from], px, py);
  }

  // Whether the centre of a pixel is the triangle's; its barycentrics and depth there.
  FF_HD bool covers(std::int32_t column, std::int32_t row, float& b1, float& b2, float& depth) const {
    const I px = centre(static_cast<I>(column)), py = centre(static_cast<I>(row));
    const I e0 = edge_value(0, px, py), e1 = edge_value(1, px, py), e2 = edge_value(2, px, py);
    b1 = static_cast<float>(e1) * inverse_area;
    b2 = static_cast<float>(e2) * inverse_area;
    depth = interpolate(b1, b2, z0, dz1, dz2);
    return ((e0 + bias[0]) | (e1 + bias[1]) | (e2 + bias[2])) >= 0;
  }
};

// Nearer is lower, and of equal depths the lower index; 0 and -0 are equal.
FF_HD std::uint64_t depth_key(float depth, std::int32_t triangle) {
  const float plain = depth + 0.0f;
  std::uint32_t bits;
  __builtin_memcpy(&bits, &plain, sizeof(bits));
  bits ^= (bits >> 31) != 0 ? 0xffffffffu : 0x80000000u;
  return static_cast<std::uint64_t>(bits) << 32 | static_cast<std::uint32_t>(triangle);
}

}  // namespace FF_ISA
}  // namespace fastface
