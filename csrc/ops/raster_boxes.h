// Triangles whose boxes hold a few pixels, as those of a face mesh do: kLanes of them are tested at a time, pixel of the
// box by pixel of the box. The pixels found are listed and then compete for the depth buffer one by one, in whatever
// order: nearer wins, then the lower index.
#pragma once

#include <cstdint>

#include "ops/raster_setup.h"

namespace fastface {
inline namespace FF_ISA {
namespace raster {

// Pixels that triangles cover.
struct Samples {
  static constexpr std::int32_t kMost = 1024, kRoom = kMost + 17 * kLanes;
  std::int32_t pixel[kRoom];
  std::int32_t owner[kRoom];  // by number in the piece
  float z[kRoom], b1[kRoom], b2[kRoom];
  std::int32_t count = 0;
};

// Some vertices, coordinate by coordinate.
FF_INLINE void load_vertices(const Vertex* from, VecInt& x, VecInt& y, VecFloat& z) {
  const std::int32_t* words = &from->x;
  VecInt xz[2], ys[2], unused, depth;
  unzip(load(words), load(words + kLanes), xz[0], ys[0]);
  unzip(load(words + 2 * kLanes), load(words + 3 * kLanes), xz[1], ys[1]);
  unzip(xz[0], xz[1], x, depth);
  unzip(ys[0], ys[1], y, unused);
  z = reinterpret_cast<VecFloat>(depth);
}

struct Piece {
  static constexpr std::int64_t kMost = 128;
  alignas(64) Vertex corner[3][kMost + kLanes];
};

// Tests kLanes triangles from number `at` on against boxes of kSide x kSide pixels.
template <int kSide>
FF_INLINE void test_boxes(const Piece& piece, std::int32_t at, std::int64_t width, std::int64_t begin,
                          std::int64_t end, std::int64_t stride, Samples& samples) {
  using S = VecInt;
  const auto u = [](S v) { return reinterpret_cast<VecUnsigned>(v); };
  const auto s = [](VecUnsigned v) { return reinterpret_cast<S>(v); };
  S x[3], y[3];
  VecFloat z[3];
  for (int i = 0; i < 3; ++i) load_vertices(piece.corner[i] + at, x[i], y[i], z[i]);
  const S low_x = first_centre(smallest(x[0], x[1], x[2])), low_y = first_centre(smallest(y[0], y[1], y[2]));
  const S top = splat<S>(static_cast<std::int32_t>(begin));
  const S x0 = low_x > 0 ? low_x : S{}, y0 = low_y > top ? low_y : top;
  const S area = s(doubled_area(u(x[0]), u(y[0]), u(x[1]), u(y[1]), u(x[2]), u(y[2])));
  const S sign = area > 0 ? S{} + 1 : S{} - 1;
  const Edge<S> edge0 = edge_between(x[1], y[1], x[2], y[2], sign);
  const Edge<S> edge1 = edge_between(x[2], y[2], x[0], y[0], sign);
  const Edge<S> edge2 = edge_between(x[0], y[0], x[1], y[1], sign);
  const S doubled = area * sign, inside0 = doubled + edge_bias(edge0), bias1 = edge_bias(edge1), bias2 = edge_bias(edge2);
  const S px = centre(x0), py = centre(y0);
  S row1 = edge_at(edge1, x[2], y[2], px, py), row2 = edge_at(edge2, x[0], y[0], px, py);
  const S right1 = edge1.per_x * kSubpixels, down1 = edge1.per_y * kSubpixels;
  const S right2 = edge2.per_x * kSubpixels, down2 = edge2.per_y * kSubpixels;
  const VecFloat inverse_area = 1.0f / __builtin_convertvector(doubled, VecFloat);
  const VecFloat dz1 = z[1] - z[0], dz2 = z[2] - z[0];
  S pixel_row = y0 * static_cast<std::int32_t>(stride) + x0;
  S outside[kSide];  // negative beyond the image's right border
  for (int i = 0; i < kSide; ++i) outside[i] = static_cast<std::int32_t>(width) - 1 - i - x0;
  for (int j = 0; j < kSide; ++j) {
    const S below = static_cast<std::int32_t>(end) - 1 - j - y0;
    S e1 = row1, e2 = row2;
    for (int i = 0; i < kSide; ++i) {
      const S covered = (((e1 + bias1) | (e2 + bias2)) | ((inside0 - e1 - e2) | (outside[i] | below))) >= 0;
      const std::uint32_t bits = lane_bits(covered);
      if (bits != 0) {
        const VecFloat b1 = __builtin_convertvector(e1, VecFloat) * inverse_area;
        const VecFloat b2 = __builtin_convertvector(e2, VecFloat) * inverse_area;
        const std::int32_t to = samples.count;
        samples.count += append_lanes(samples.pixel + to, S(pixel_row + i), bits);
        append_lanes(samples.owner + to, S(ramp<kLanes>() + at), bits);
        append_lanes(samples.z + to, interpolate(b1, b2, z[0], dz1, dz2), bits);
        append_lanes(samples.b1 + to, b1, bits);
        append_lanes(samples.b2 + to, b2, bits);
      }
      e1 += right1;
      e2 += right2;
    }
    row1 += down1;
    row2 += down2;
    pixel_row += static_cast<std::int32_t>(stride);
  }
}

template <class Target, class Ink>
FF_INLINE void settle_samples(const Target& given, const std::int32_t* triangles, const Ink* inks, Samples& samples) {
  const Target target = given;
  float* depth = target.depth;
  std::int32_t* id = target.id;
  const std::int32_t count = samples.count;
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int64_t pixel = samples.pixel[i];
    const std::int32_t owner = samples.owner[i], triangle = triangles[owner];
    const float z = samples.z[i], held = depth[pixel];
    if (z < held || (z == held && triangle < id[pixel])) {
      depth[pixel] = z;
      id[pixel] = triangle;
      target.write_one(inks[owner], pixel, samples.b1[i], samples.b2[i]);
    }
  }
  samples.count = 0;
}

// Draws the rows [begin, end) of listed triangles, whose boxes have at most kSide pixels a side.
template <int kSide, class Target>
void draw_boxes(const Target& target, const Mesh& mesh, const std::int32_t* triangles, std::int64_t count,
                std::int64_t begin, std::int64_t end) {
  using Ink = decltype(target.begin_one(0));
  Piece piece;
  Ink inks[Piece::kMost];
  Samples samples;
  for (std::int64_t first = 0; first < count; first += Piece::kMost) {
    const std::int32_t some = static_cast<std::int32_t>(count - first < Piece::kMost ? count - first : Piece::kMost);
    const std::int32_t* listed = triangles + first;
    for (std::int32_t k = 0; k < some; ++k) {
      const std::int32_t* corner = mesh.triangles + 3 * static_cast<std::int64_t>(listed[k]);
      for (int i = 0; i < 3; ++i) piece.corner[i][k] = mesh.vertices[corner[i]];
      inks[k] = target.begin_one(listed[k]);
    }
    // Triangles without area cover nothing.
    for (int i = 0; i < 3; ++i)
      for (int k = 0; k < kLanes; ++k) piece.corner[i][some + k] = Vertex{0, 0, 1.0f, kSnapped};
    for (std::int32_t at = 0; at < some; at += kLanes) {
      test_boxes<kSide>(piece, at, mesh.width, begin, end, target.stride, samples);
      if (samples.count > Samples::kMost) settle_samples(target, listed, inks, samples);
    }
    settle_samples(target, listed, inks, samples);
  }
}

}  // namespace raster
}  // namespace FF_ISA
}  // namespace fastface
