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

template <class F>
FF_HD F interpolate(F b1, F b2, float z0, float dz1, float dz2) {
  return z0 + (b1 * dz1 + b2 * dz2);
}

}  // namespace FF_ISA
}  // namespace fastface
