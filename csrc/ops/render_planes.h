// What a frame of render knows of each pixel: the nearest triangle and the motion of the skin there. Written by the
// rasterizer in the place of barycentrics.
#pragma once

#include <cstdint>

#include "ops/raster_draw.h"
#include "ops/shade_vertices.h"

namespace fastface {
inline namespace FF_ISA {
namespace rendering {

using shading::Four;

// The log gain counts on skin alone. Elsewhere the layer stands in its place, out of the gains' reach.
constexpr float kLayerMark = 100.0f;

FF_INLINE float layer_mark(std::int32_t layer) { return kLayerMark + static_cast<float>(layer); }
FF_INLINE std::int32_t layer_of(float mark) {
  return mark > 0.5f * kLayerMark ? static_cast<std::int32_t>(mark - kLayerMark) : kSkin;
}

// Of some rows at a time, few enough for the cache; each is `stride` long, so that a span may reach beyond the image.
// The pointers are where row 0 of the image would be.
struct Planes {
  float* depth;  // infinite where no triangle is; there the others mean nothing
  std::int32_t* id;
  float *dx, *dy, *gain;
  std::int64_t stride;
  const float* motion;  // (V, 4) of shade
  const std::int32_t* triangles;
  const std::uint8_t* layer;

  // Odd numbers of cache lines, and planes a little further apart than they need be: addresses that agree in their last
  // twelve bits are taken for the same when a load looks for earlier stores.
  static constexpr std::int64_t kApart = 208;
  static std::int64_t stride_for(std::int64_t width) { return ((width + raster::kSpan + 15) / 16 | 1) * 16; }

  // A triangle's motion: at its first vertex, and towards the second and the third.
  struct Slopes {
    Four start, second, third;
  };

  FF_INLINE Slopes begin_one(std::int32_t triangle) const {
    const std::int32_t* corner = triangles + 3 * static_cast<std::int64_t>(triangle);
    const Four start = load<4>(motion + 4 * static_cast<std::int64_t>(corner[0]));
    Slopes slopes = {start, load<4>(motion + 4 * static_cast<std::int64_t>(corner[1])) - start,
                     load<4>(motion + 4 * static_cast<std::int64_t>(corner[2])) - start};
    const std::int32_t kind = layer[triangle] & 3;
    if (kind != kSkin) {
      slopes.start[2] = layer_mark(kind);
      slopes.second[2] = slopes.third[2] = 0.0f;
    }
    return slopes;
  }
  // The same in every lane.
  template <int N>
  struct WideSlopes {
    Vec<float, N> start[3], second[3], third[3];
  };
  template <int N>
  FF_INLINE WideSlopes<N> begin(std::int32_t triangle) const {
    const Slopes one = begin_one(triangle);
    WideSlopes<N> wide;
    for (int c = 0; c < 3; ++c) {
      wide.start[c] = splat<Vec<float, N>>(one.start[c]);
      wide.second[c] = splat<Vec<float, N>>(one.second[c]);
      wide.third[c] = splat<Vec<float, N>>(one.third[c]);
    }
    return wide;
  }

  FF_INLINE void write_one(const Slopes& s, std::int64_t pixel, float b1, float b2) const {
    const Four at = s.start + b1 * s.second + b2 * s.third;
    dx[pixel] = at[0];
    dy[pixel] = at[1];
    gain[pixel] = at[2];
  }
  template <int N>
  FF_INLINE void write(const WideSlopes<N>& s, std::int64_t pixel, Lanes<N> wins, Vec<float, N> b1,
                       Vec<float, N> b2) const {
    float* const plane[3] = {dx, dy, gain};
    for (int c = 0; c < 3; ++c) store_where<N>(plane[c] + pixel, wins, s.start[c] + b1 * s.second[c] + b2 * s.third[c]);
  }
};

// Barycentrics of the pixel (row, column) in one of the triangles, as the rasterizer found them.
inline void bary_at(const raster::Mesh& mesh, std::int64_t triangle, std::int64_t row, std::int64_t column, float& b1,
                    float& b2) {
  const raster::Wide<std::int64_t> wide = raster::set_up_wide<std::int64_t>(mesh, triangle);
  const std::int64_t px = centre(column), py = centre(row);
  b1 = static_cast<float>(edge_at(wide.edge[1], wide.x[2], wide.y[2], px, py)) * wide.inverse_area;
  b2 = static_cast<float>(edge_at(wide.edge[2], wide.x[0], wide.y[0], px, py)) * wide.inverse_area;
}

}  // namespace rendering
}  // namespace FF_ISA
}  // namespace fastface
