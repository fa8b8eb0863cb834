// The set-up of rasterization: vertices are snapped, triangles that cannot cover a pixel are sorted out, and the others
// listed by size, for each is drawn in another way: boxes of up to 2 x 2 and 4 x 4 pixels many triangles at a time
// (raster_boxes.h), larger ones span by span (raster_spans.h). Shared by every schedule that draws triangles.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/simd.h"
#include "ops/rasterize_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace raster {

__extension__ typedef __int128 Int128;

constexpr std::int64_t kChunk = 256;                    // triangles looked at together
constexpr std::int32_t kSmallExtent = 64 * kSubpixels;  // edge functions of smaller triangles fit 32 bits
constexpr double kSnapLimit = 536870912.0;              // 2^29 subpixels: differences fit 32 bits, edge functions 64
constexpr double kHugeLimit = 281474976710656.0;        // 2^48 subpixels: edge functions fit 128 bits

enum : std::int32_t { kSnapped = 0, kHuge = 1, kRejected = 2 };
constexpr std::int32_t kElsewhere = INT32_MIN / 2;  // x of a vertex that is not snapped: beyond all that are

struct alignas(16) Vertex {
  std::int32_t x, y;  // subpixels
  float z;
  std::int32_t state;
};

// What is drawn, and the image it is drawn into.
struct Mesh {
  const float* screen;
  const std::int32_t* triangles;
  Vertex* vertices;  // snapped from `screen`
  std::int64_t vertex_count, triangle_count;
  std::int64_t height, width;
  bool cull;
};

inline void snap_vertices(const Mesh& mesh, std::int64_t begin, std::int64_t end) {
  constexpr float kNear = static_cast<float>(kSnapLimit), kFar = static_cast<float>(kHugeLimit);
  for (std::int64_t v = begin; v < end; ++v) {
    const float* p = mesh.screen + v * 3;
    const float x = p[0] * static_cast<float>(kSubpixels), y = p[1] * static_cast<float>(kSubpixels), z = p[2];
    const bool near = (__builtin_fabsf(x) <= kNear) & (__builtin_fabsf(y) <= kNear);
    const bool far = (__builtin_fabsf(x) <= kFar) & (__builtin_fabsf(y) <= kFar) & (z > 0.0f) & (z <= __FLT_MAX__);
    Vertex& out = mesh.vertices[v];
    const bool snapped = near & far;
    const std::int32_t whole = static_cast<std::int32_t>(__builtin_rintf(near ? x : 0.0f));
    out.x = snapped ? whole : kElsewhere;
    out.y = static_cast<std::int32_t>(__builtin_rintf(near ? y : 0.0f));
    out.z = z;
    out.state = far ? (near ? kSnapped : kHuge) : kRejected;
  }
}

template <class I>
FF_INLINE I smallest(I a, I b, I c) {
  const I ab = a < b ? a : b;
  return ab < c ? ab : c;
}
template <class I>
FF_INLINE I largest(I a, I b, I c) {
  const I ab = a > b ? a : b;
  return ab > c ? ab : c;
}

// The first and last pixel of [0, size) with its centre in [low, high]; first > last where there is none.
template <class I>
FF_INLINE std::int32_t clip_first(I low, I size) {
  const I first = first_centre(low);
  return static_cast<std::int32_t>(first < 0 ? I{} : first < size ? first : size);
}
template <class I>
FF_INLINE std::int32_t clip_last(I high, I size) {
  const I last = last_centre(high);
  return static_cast<std::int32_t>(last < 0 ? I{} - 1 : last < size ? last : size - 1);
}

inline bool indices_valid(const std::int32_t* index, std::int64_t count, std::int64_t vertices) {
  std::uint32_t top = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t v = static_cast<std::uint32_t>(index[i]);
    top = v > top ? v : top;
  }
  return count == 0 || top < static_cast<std::uint64_t>(vertices);
}

// ---- which triangles are worth setting up

using VecUnsigned = Vec<std::uint32_t, kLanes>;

// Corners of a chunk: x and y in subpixels.
struct Corners {
  alignas(64) std::int32_t xy[3][2 * (kChunk + kLanes)];
};

inline void gather_corners(const Mesh& mesh, std::int64_t first, std::int64_t count, Corners& corners) {
  const std::int32_t* index = mesh.triangles + first * 3;
  for (std::int64_t t = 0; t < count; ++t)
    for (int i = 0; i < 3; ++i) std::memcpy(&corners.xy[i][2 * t], &mesh.vertices[index[3 * t + i]].x, 8);
  for (int i = 0; i < 3; ++i) std::memset(&corners.xy[i][2 * count], 0, 2 * kLanes * sizeof(std::int32_t));
}

// Triangles of some rows of the image, by how they are drawn.
enum Way : int { kTiny, kLittle, kSpans };
constexpr int kWays = 3;
constexpr std::int32_t kTinyBox = 2, kLittleBox = 4;  // pixels a side

constexpr std::int32_t kFewBands = 4;  // all of them are looked at sooner than the right ones are found

struct Lists {
  std::int32_t* triangle[kWays];
  std::int32_t count[kWays];
};

// The rows of the image in bands: of each but the last, `rows`.
struct Bands {
  std::int32_t count, rows, height;

  FF_INLINE std::int32_t begin(std::int64_t band) const { return static_cast<std::int32_t>(band) * rows; }
  FF_INLINE std::int32_t end(std::int64_t band) const {
    const std::int32_t past = begin(band) + rows;
    return past < height ? past : height;
  }
  static Bands of(std::int64_t height, std::int64_t rows) {
    if (rows > height || rows < 1) rows = height > 1 ? height : 1;
    return {static_cast<std::int32_t>((height + rows - 1) / rows), static_cast<std::int32_t>(rows),
            static_cast<std::int32_t>(height)};
  }
};

// The lowest and the highest of the lanes in `bits`, which are not none.
FF_INLINE void range_of(VecInt low, VecInt high, std::uint32_t bits, std::int32_t& lowest, std::int32_t& highest) {
  lowest = INT32_MAX;
  highest = INT32_MIN;
  for (; bits != 0; bits &= bits - 1) {
    const int i = __builtin_ctz(bits);
    lowest = low[i] < lowest ? low[i] : lowest;
    highest = high[i] > highest ? high[i] : highest;
  }
}

// Adds to each band's lists the triangles among [first, first + count) that have area, face the viewer where that
// matters and have a pixel centre in their box; and those too large to tell so soon. Lists need room for kLanes more.
inline void list_visible(const Mesh& mesh, std::int64_t first, std::int64_t count, const Bands& bands, Lists* lists) {
  Corners corners;
  gather_corners(mesh, first, count, corners);
  const VecInt width = splat<VecInt>(static_cast<std::int32_t>(mesh.width));
  for (std::int64_t t = 0; t < count; t += kLanes) {
    VecInt x[3], y[3];
    for (int i = 0; i < 3; ++i) {
      const std::int32_t* from = &corners.xy[i][2 * t];
      unzip(load(from), load(from + kLanes), x[i], y[i]);
    }
    const std::uint32_t here = count - t < kLanes ? (1u << (count - t)) - 1u : ~0u;
    const auto u = [](VecInt v) { return reinterpret_cast<VecUnsigned>(v); };
    const VecInt area = reinterpret_cast<VecInt>(doubled_area(u(x[0]), u(y[0]), u(x[1]), u(y[1]), u(x[2]), u(y[2])));
    const VecInt low_x = smallest(x[0], x[1], x[2]), high_x = largest(x[0], x[1], x[2]);
    const VecInt low_y = smallest(y[0], y[1], y[2]), high_y = largest(y[0], y[1], y[2]);
    const VecInt x0 = first_centre(low_x), x1 = last_centre(high_x);
    const VecInt y0 = first_centre(low_y), y1 = last_centre(high_y);
    const VecInt elsewhere = low_x == kElsewhere;
    const VecInt large = (high_x - low_x > kSmallExtent) | (high_y - low_y > kSmallExtent);
    const VecInt faces = (mesh.cull ? area < 0 : area != 0) | large;
    const VecInt across = (x0 <= x1) & (y0 <= y1) & (x0 < width) & (x1 >= 0) & faces;
    const VecInt tiny = (x1 - x0 < kTinyBox) & (y1 - y0 < kTinyBox);
    const VecInt little = (x1 - x0 < kLittleBox) & (y1 - y0 < kLittleBox);
    const VecInt number = ramp<kLanes>() + static_cast<std::int32_t>(first + t);
    const VecInt seen = across & (y0 < bands.height) & (y1 >= 0);
    if (((lane_bits(seen) | lane_bits(elsewhere)) & here) == 0) continue;
    std::int32_t top = 0, bottom = bands.height - 1;
    if (bands.count > kFewBands && (lane_bits(elsewhere) & here) == 0)
      range_of(y0, y1, lane_bits(seen) & here, top, bottom);
    top = top > 0 ? top : 0;
    bottom = bottom < bands.height ? bottom : bands.height - 1;
    for (int b = top / bands.rows; b <= bottom / bands.rows; ++b) {
      const VecInt inside = seen & (y0 < bands.end(b)) & (y1 >= bands.begin(b));
      const std::uint32_t of_any = (lane_bits(inside) | lane_bits(elsewhere)) & here;
      if (of_any == 0) continue;
      const std::uint32_t of_tiny = lane_bits(inside & tiny & ~elsewhere) & here;
      const std::uint32_t of_little = lane_bits(inside & little & ~elsewhere) & here & ~of_tiny;
      const std::uint32_t chosen[kWays] = {of_tiny, of_little, of_any & ~(of_tiny | of_little)};
      for (int way = 0; way < kWays; ++way)
        lists[b].count[way] += append_lanes(lists[b].triangle[way] + lists[b].count[way], number, chosen[way]);
    }
  }
}

}  // namespace raster
}  // namespace FF_ISA
}  // namespace fastface
