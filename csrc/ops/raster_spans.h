// Triangles drawn span by span: any size, the larger ones in wider integers. What is written where a triangle wins is a
// target's affair:
//
//   std::int64_t stride; float* depth; std::int32_t* id;
//   template <int N> auto begin(std::int32_t triangle) const           what it writes, made ready
//   template <int N> void write(ink, pixel, Lanes<N> wins, b1, b2) const
//   auto begin_one(std::int32_t triangle) const                         the same for single pixels
//   void write_one(ink, pixel, b1, b2) const
#pragma once

#include <cstdint>

#include "ops/raster_setup.h"

namespace fastface {
inline namespace FF_ISA {
namespace raster {

constexpr int kSpan = kLanes < 8 ? kLanes : 8;  // pixels tested together

enum : std::int32_t { kDrop = 0, kKeepSmall = 1, kKeepLarge = 2 };

// The set-up of some triangles, field by field so that it is computed by whole vectors. Of triangles too large for 32
// bits only the box is right.
struct Setup {
  std::int32_t triangle[kChunk];
  std::int32_t x0[kChunk], y0[kChunk], x1[kChunk], y1[kChunk];      // covered box, clipped to the image, inclusive
  std::int32_t e1[kChunk], e2[kChunk];                              // edge functions of vertices 1 and 2 at (x0, y0)
  std::int32_t dx1[kChunk], dy1[kChunk], dx2[kChunk], dy2[kChunk];  // and their steps per pixel
  std::int32_t inside0[kChunk];                                     // doubled area plus the bias of edge 0
  std::int32_t bias1[kChunk], bias2[kChunk];
  float z0[kChunk], dz1[kChunk], dz2[kChunk], inverse_area[kChunk];
  std::int32_t keep[kChunk];
  Vertex corner[3][kChunk];
};

// A triangle of any size, in integers of type I.
template <class I>
struct Wide {
  Edge<I> edge[3];
  I x[3], y[3];
  I bias[3];
  float z0, dz1, dz2, inverse_area;
  bool visible;
};

template <class I>
I snap_wide(float coordinate_px) {
  return static_cast<I>(__builtin_rint(static_cast<double>(coordinate_px) * kSubpixels));
}

template <class I>
Wide<I> set_up_wide(const Mesh& mesh, std::int64_t triangle) {
  Wide<I> wide;
  float z[3];
  for (int i = 0; i < 3; ++i) {
    const float* p = mesh.screen + static_cast<std::int64_t>(mesh.triangles[triangle * 3 + i]) * 3;
    wide.x[i] = snap_wide<I>(p[0]);
    wide.y[i] = snap_wide<I>(p[1]);
    z[i] = p[2];
  }
  const I area = doubled_area(wide.x[0], wide.y[0], wide.x[1], wide.y[1], wide.x[2], wide.y[2]);
  const I sign = area > 0 ? 1 : -1;
  for (int i = 0; i < 3; ++i) {
    const int from = (i + 1) % 3, to = (i + 2) % 3;
    wide.edge[i] = edge_between<I>(wide.x[from], wide.y[from], wide.x[to], wide.y[to], sign);
    wide.bias[i] = edge_bias(wide.edge[i]);
  }
  wide.visible = area != 0 && !(mesh.cull && area > 0);
  wide.inverse_area = 1.0f / static_cast<float>(area * sign);
  wide.z0 = z[0];
  wide.dz1 = z[1] - z[0];
  wide.dz2 = z[2] - z[0];
  return wide;
}

// Unsigned inside: products wrap for large and rejected triangles, which do not use them.
inline void set_up_small(const Mesh& mesh, std::int64_t count, const Vertex* FF_RESTRICT a, const Vertex* FF_RESTRICT b,
                  const Vertex* FF_RESTRICT c, Setup& FF_RESTRICT s) {
  using U = std::uint32_t;
  using S = std::int32_t;
  const S width = static_cast<S>(mesh.width), height = static_cast<S>(mesh.height);
  const S cull = mesh.cull ? 1 : 0;
  const auto bias = [](const Edge<U>& e) {
    return edge_bias(Edge<S>{static_cast<S>(e.per_x), static_cast<S>(e.per_y)});
  };
#pragma GCC ivdep
  for (std::int64_t t = 0; t < count; ++t) {
    const S low_x = smallest(a[t].x, b[t].x, c[t].x), high_x = largest(a[t].x, b[t].x, c[t].x);
    const S low_y = smallest(a[t].y, b[t].y, c[t].y), high_y = largest(a[t].y, b[t].y, c[t].y);
    const S x0 = clip_first(low_x, width), x1 = clip_last(high_x, width);
    const S y0 = clip_first(low_y, height), y1 = clip_last(high_y, height);
    const U ax = static_cast<U>(a[t].x), bx = static_cast<U>(b[t].x), cx = static_cast<U>(c[t].x);
    const U ay = static_cast<U>(a[t].y), by = static_cast<U>(b[t].y), cy = static_cast<U>(c[t].y);
    const S area = static_cast<S>(doubled_area(ax, ay, bx, by, cx, cy));
    const U sign = area > 0 ? 1u : ~0u;
    const Edge<U> edge0 = edge_between(bx, by, cx, cy, sign);
    const Edge<U> edge1 = edge_between(cx, cy, ax, ay, sign);
    const Edge<U> edge2 = edge_between(ax, ay, bx, by, sign);
    const U px = centre(static_cast<U>(x0)), py = centre(static_cast<U>(y0));
    const S doubled = static_cast<S>(static_cast<U>(area) * sign);
    s.x0[t] = x0;
    s.y0[t] = y0;
    s.x1[t] = x1;
    s.y1[t] = y1;
    s.e1[t] = static_cast<S>(edge_at(edge1, cx, cy, px, py));
    s.e2[t] = static_cast<S>(edge_at(edge2, ax, ay, px, py));
    s.dx1[t] = static_cast<S>(edge1.per_x * kSubpixels);
    s.dy1[t] = static_cast<S>(edge1.per_y * kSubpixels);
    s.dx2[t] = static_cast<S>(edge2.per_x * kSubpixels);
    s.dy2[t] = static_cast<S>(edge2.per_y * kSubpixels);
    s.inside0[t] = static_cast<S>(static_cast<U>(doubled) + static_cast<U>(bias(edge0)));
    s.bias1[t] = bias(edge1);
    s.bias2[t] = bias(edge2);
    s.z0[t] = a[t].z;
    s.dz1[t] = b[t].z - a[t].z;
    s.dz2[t] = c[t].z - a[t].z;
    s.inverse_area[t] = 1.0f / static_cast<float>(doubled);
    const S state = a[t].state | b[t].state | c[t].state;
    const S large = ((high_x - low_x) > kSmallExtent) | ((high_y - low_y) > kSmallExtent);
    const S box = (x0 <= x1) & (y0 <= y1);
    const S visible = box & (area != 0) & (1 ^ (cull & (area > 0)));
    const S snapped = state == kSnapped, huge = state == kHuge;
    s.keep[t] = (snapped & (1 ^ large) & visible) | (((snapped & large & box) | huge) << 1);
  }
}

inline bool is_huge(const Mesh& mesh, std::int64_t triangle) {
  for (int i = 0; i < 3; ++i)
    if (mesh.vertices[mesh.triangles[triangle * 3 + i]].state == kHuge) return true;
  return false;
}

template <class I>
bool set_up_box(const Mesh& mesh, std::int64_t triangle, Setup& s, std::int64_t t) {
  const Wide<I> wide = set_up_wide<I>(mesh, triangle);
  const I width = mesh.width, height = mesh.height;
  s.x0[t] = clip_first<I>(smallest(wide.x[0], wide.x[1], wide.x[2]), width);
  s.x1[t] = clip_last<I>(largest(wide.x[0], wide.x[1], wide.x[2]), width);
  s.y0[t] = clip_first<I>(smallest(wide.y[0], wide.y[1], wide.y[2]), height);
  s.y1[t] = clip_last<I>(largest(wide.y[0], wide.y[1], wide.y[2]), height);
  return wide.visible && s.x0[t] <= s.x1[t] && s.y0[t] <= s.y1[t];
}

inline void set_up(const Mesh& mesh, const std::int32_t* triangles, std::int64_t count, Setup& s) {
  for (std::int64_t k = 0; k < count; ++k) {
    s.triangle[k] = triangles[k];
    for (int i = 0; i < 3; ++i)
      s.corner[i][k] = mesh.vertices[mesh.triangles[3 * static_cast<std::int64_t>(triangles[k]) + i]];
  }
  set_up_small(mesh, count, s.corner[0], s.corner[1], s.corner[2], s);
  for (std::int64_t k = 0; k < count; ++k) {
    if (s.keep[k] != kKeepLarge) continue;
    const bool visible = is_huge(mesh, s.triangle[k]) ? set_up_box<Int128>(mesh, s.triangle[k], s, k)
                                                      : set_up_box<std::int64_t>(mesh, s.triangle[k], s, k);
    s.keep[k] = visible ? kKeepLarge : kDrop;
  }
}

// Spans start early rather than run over the end of a row: a pixel that is tested twice changes nothing.
template <int N>
FF_INLINE std::int64_t span_start(std::int64_t x, std::int64_t width) {
  return x + N <= width ? x : width - N;
}

// Where covered and nearer than what is there, or as near and of a lower index.
template <int N, class Target, class Ink>
FF_INLINE void write_nearer(const Target& target, std::int32_t triangle, const Ink& ink, std::int64_t pixel,
                            Lanes<N> covered, Vec<float, N> z, Vec<float, N> b1, Vec<float, N> b2) {
  float* depth = target.depth + pixel;
  std::int32_t* id = target.id + pixel;
  const Vec<float, N> held = load<N>(depth);
  Lanes<N> wins = covered & lanes_less<N>(z, held);
  const Lanes<N> level = covered & lanes_equal<N>(z, held);
  if (__builtin_expect(any_lane<N>(level), 0)) wins |= level & lanes_from_zero_up<N>(load<N>(id) - triangle - 1);
  if (N > 1 && !any_lane<N>(wins)) return;
  store_where<N>(depth, wins, z);
  store_where<N>(id, wins, splat<Vec<std::int32_t, N>>(triangle));
  target.template write<N>(ink, pixel, wins, b1, b2);
}

template <int N, class Target>
FF_INLINE void draw_small(const Target& target, const Setup& s, std::int64_t t, std::int64_t row0, std::int64_t row1) {
  using Int = Vec<std::int32_t, N>;
  using Float = Vec<float, N>;
  const auto ink = target.template begin<N>(s.triangle[t]);
  const std::int64_t width = target.stride;
  const std::int32_t bias1 = s.bias1[t], bias2 = s.bias2[t], inside0 = s.inside0[t], dy1 = s.dy1[t], dy2 = s.dy2[t];
  const float inverse_area = s.inverse_area[t], z0 = s.z0[t], dz1 = s.dz1[t], dz2 = s.dz2[t];
  for (std::int64_t x = s.x0[t]; x <= s.x1[t]; x += N) {
    const std::int64_t start = span_start<N>(x, width);
    const std::int32_t right = static_cast<std::int32_t>(start - s.x0[t]);
    const std::int32_t down = static_cast<std::int32_t>(row0 - s.y0[t]);
    Int e1 = ramp<N>() * s.dx1[t] + (s.e1[t] + right * s.dx1[t] + down * dy1);
    Int e2 = ramp<N>() * s.dx2[t] + (s.e2[t] + right * s.dx2[t] + down * dy2);
    std::int64_t pixel = row0 * width + start;
    for (std::int64_t row = row0; row <= row1; ++row) {
      const Lanes<N> covered = lanes_from_zero_up<N>((e1 + bias1) | (e2 + bias2) | (inside0 - e1 - e2));
      const Float b1 = __builtin_convertvector(e1, Float) * inverse_area;
      const Float b2 = __builtin_convertvector(e2, Float) * inverse_area;
      write_nearer<N>(target, s.triangle[t], ink, pixel, covered, interpolate(b1, b2, z0, dz1, dz2), b1, b2);
      e1 += dy1;
      e2 += dy2;
      pixel += width;
    }
  }
}

template <class I, class Target>
void draw_wide(const Target& target, const Mesh& mesh, const Setup& s, std::int64_t t, std::int64_t row0,
               std::int64_t row1) {
  const Wide<I> wide = set_up_wide<I>(mesh, s.triangle[t]);
  const auto ink = target.template begin<1>(s.triangle[t]);
  for (std::int64_t row = row0; row <= row1; ++row) {
    I e[3];
    for (int i = 0; i < 3; ++i) {
      const int from = (i + 1) % 3;
      e[i] = edge_at<I>(wide.edge[i], wide.x[from], wide.y[from], centre<I>(s.x0[t]), centre<I>(row));
    }
    for (std::int64_t x = s.x0[t]; x <= s.x1[t]; ++x) {
      if (((e[0] + wide.bias[0]) | (e[1] + wide.bias[1]) | (e[2] + wide.bias[2])) >= 0) {
        const float b1 = static_cast<float>(e[1]) * wide.inverse_area,
                    b2 = static_cast<float>(e[2]) * wide.inverse_area;
        const float z = interpolate(b1, b2, wide.z0, wide.dz1, wide.dz2);
        using One = Vec<float, 1>;
        const Lanes<1> covered = {-1};
        write_nearer<1>(target, s.triangle[t], ink, row * target.stride + x, covered, One{z}, One{b1}, One{b2});
      }
      for (int i = 0; i < 3; ++i) e[i] += wide.edge[i].per_x * kSubpixels;
    }
  }
}

template <int N, class Target>
void draw_set_up(const Target& given, const Mesh& mesh, const Setup& s, std::int64_t count, std::int64_t begin,
                 std::int64_t end) {
  const Target target = given;  // at hand: for all that the compiler knows, a vector's store may change the other
  for (std::int64_t k = 0; k < count; ++k) {
    const std::int64_t row0 = s.y0[k] > begin ? s.y0[k] : begin, row1 = s.y1[k] < end - 1 ? s.y1[k] : end - 1;
    if (row0 > row1 || s.keep[k] == kDrop) continue;
    if (s.keep[k] == kKeepSmall) {
      draw_small<N>(target, s, k, row0, row1);
    } else if (is_huge(mesh, s.triangle[k])) {
      draw_wide<Int128>(target, mesh, s, k, row0, row1);
    } else {
      draw_wide<std::int64_t>(target, mesh, s, k, row0, row1);
    }
  }
}

// Draws the rows [begin, end) of the listed triangles.
template <class Target>
void draw_spans(const Target& target, const Mesh& mesh, const std::int32_t* triangles, std::int64_t count,
                std::int64_t begin, std::int64_t end) {
  Setup setup;
  for (std::int64_t first = 0; first < count; first += kChunk) {
    const std::int64_t some = count - first < kChunk ? count - first : kChunk;
    set_up(mesh, triangles + first, some, setup);
    if (target.stride >= kSpan) {
      draw_set_up<kSpan>(target, mesh, setup, some, begin, end);
    } else {
      draw_set_up<1>(target, mesh, setup, some, begin, end);
    }
  }
}

}  // namespace raster
}  // namespace FF_ISA
}  // namespace fastface
