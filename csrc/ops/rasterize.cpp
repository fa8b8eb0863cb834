// Schedule: snap all vertices, set up triangles in chunks (culled ones leave no trace), then bands of rows, each of
// which runs through the surviving triangles in index order. Depth and the winner's set-up slot are kept per pixel;
// barycentrics are worked out once per visible pixel at the end. Frames of a batch go to different threads, a single
// frame's bands do. Compiled without contraction to FMA, so that depth comparisons come out alike everywhere.
#include "ops/rasterize.h"

#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/simd.h"
#include "core/workspace.h"
#include "ops/rasterize_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace {

__extension__ typedef __int128 Int128;

constexpr std::int64_t kChunk = 256;  // triangles set up together
constexpr std::int32_t kSmallExtent =
    64 * kSubpixels;                              // edge functions of smaller triangles fit 32 bits, overshoot included
constexpr double kSnapLimit = 536870912.0;        // 2^29 subpixels: differences fit 32 bits, edge functions 64
constexpr double kHugeLimit = 281474976710656.0;  // 2^48 subpixels: edge functions fit 128 bits
constexpr std::int64_t kBandRows = 32;
constexpr int kSpan = 8;  // pixels tested together

enum : std::int32_t { kSnapped = 0, kHuge = 1, kRejected = 2 };

struct Vertex {
  std::int32_t x, y;  // subpixels
  float z;
  std::int32_t state;
};

// A triangle that survived culling; one cache line.
struct alignas(64) Setup {
  std::int16_t x0, y0, x1, y1;      // covered box, clipped to the image, inclusive
  std::int32_t e1, e2;              // edge functions of vertices 1 and 2 at the centre of (x0, y0)
  std::int32_t dx1, dy1, dx2, dy2;  // and their steps per pixel
  std::int32_t inside0;             // doubled area plus the bias of edge 0
  std::int32_t bias1, bias2;
  float z0, dz1, dz2;
  float inverse_area;
  std::int32_t triangle;  // ~index for triangles too large for 32 bits, which keep only the box here
};
static_assert(sizeof(Setup) == 64, "one cache line");

struct Slot {            // everything one frame in flight needs
  Vertex* vertices;      // (V,)
  Setup* setups;         // (chunks, kChunk)
  std::int32_t* counts;  // (chunks,)
  float* depth;          // (H, W), when the caller wants none
};

struct Plan {
  std::int64_t frames, vertices, triangles, height, width, chunks, slots;
  Slot slot;
  std::int64_t slot_bytes;
};

Slot take_slot(const Rasterize& op, const Plan& plan, Arena& arena) {
  Slot slot;
  slot.vertices = arena.take<Vertex>(plan.vertices);
  slot.setups = arena.take<Setup>(plan.chunks * kChunk);
  slot.counts = arena.take<std::int32_t>(plan.chunks);
  slot.depth = op.depth.data != nullptr ? nullptr : arena.take<float>(plan.height * plan.width);
  return slot;
}

Plan make_plan(const Rasterize& op) {
  Plan plan;
  plan.frames = op.screen.shape[0];
  plan.vertices = op.screen.shape[1];
  plan.triangles = op.triangles.shape[0];
  plan.height = op.triangle_id.shape[1];
  plan.width = op.triangle_id.shape[2];
  plan.chunks = (plan.triangles + kChunk - 1) / kChunk;
  plan.slots = plan.frames < op.threads ? plan.frames : op.threads;
  if (plan.slots < 1) plan.slots = 1;
  Arena measure(nullptr);
  take_slot(op, plan, measure);
  plan.slot_bytes = measure.used();
  return plan;
}

struct Frame {
  const Plan* plan;
  Slot slot;
  const float* screen;
  const std::int32_t* triangles;
  std::int32_t* id;
  float* bary;
  float* depth;
  bool cull;
};

// ---- set-up
// ---------------------------------------------------------------------------------------------------------------

void snap_vertices(const Frame& frame, std::int64_t begin, std::int64_t end) {
  for (std::int64_t v = begin; v < end; ++v) {
    const float* p = frame.screen + v * 3;
    const float x = p[0] * static_cast<float>(kSubpixels), y = p[1] * static_cast<float>(kSubpixels), z = p[2];
    const float limit = static_cast<float>(kSnapLimit);
    const bool near = (__builtin_fabsf(x) <= limit) & (__builtin_fabsf(y) <= limit);
    const bool finite = (__builtin_fabsf(x) <= static_cast<float>(kHugeLimit)) &
                        (__builtin_fabsf(y) <= static_cast<float>(kHugeLimit)) & (z > 0.0f) & (z <= __FLT_MAX__);
    Vertex& out = frame.slot.vertices[v];
    out.x = static_cast<std::int32_t>(__builtin_rintf(near ? x : 0.0f));
    out.y = static_cast<std::int32_t>(__builtin_rintf(near ? y : 0.0f));
    out.z = z;
    out.state = finite ? (near ? kSnapped : kHuge) : kRejected;
  }
}

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
Wide<I> set_up_wide(const Frame& frame, std::int64_t triangle) {
  Wide<I> wide;
  float z[3];
  for (int i = 0; i < 3; ++i) {
    const float* p = frame.screen + static_cast<std::int64_t>(frame.triangles[triangle * 3 + i]) * 3;
    wide.x[i] = snap_wide<I>(p[0]);
    wide.y[i] = snap_wide<I>(p[1]);
    z[i] = p[2];
  }
  const I area = (wide.x[1] - wide.x[0]) * (wide.y[2] - wide.y[0]) - (wide.x[2] - wide.x[0]) * (wide.y[1] - wide.y[0]);
  const I sign = area > 0 ? 1 : -1;
  for (int i = 0; i < 3; ++i) {
    const int from = (i + 1) % 3, to = (i + 2) % 3;
    wide.edge[i] = edge_between<I>(wide.x[from], wide.y[from], wide.x[to], wide.y[to], sign);
    wide.bias[i] = edge_bias(wide.edge[i]);
  }
  wide.visible = area != 0 && !(frame.cull && area > 0);
  wide.inverse_area = 1.0f / static_cast<float>(area * sign);
  wide.z0 = z[0];
  wide.dz1 = z[1] - z[0];
  wide.dz2 = z[2] - z[0];
  return wide;
}

template <class I>
bool box_of(const Frame& frame, const Wide<I>& wide, Setup& setup) {
  I low_x = wide.x[0], high_x = wide.x[0], low_y = wide.y[0], high_y = wide.y[0];
  for (int i = 1; i < 3; ++i) {
    low_x = wide.x[i] < low_x ? wide.x[i] : low_x;
    high_x = wide.x[i] > high_x ? wide.x[i] : high_x;
    low_y = wide.y[i] < low_y ? wide.y[i] : low_y;
    high_y = wide.y[i] > high_y ? wide.y[i] : high_y;
  }
  const I right = frame.plan->width - 1, bottom = frame.plan->height - 1;
  I x0 = first_centre(low_x), x1 = last_centre(high_x), y0 = first_centre(low_y), y1 = last_centre(high_y);
  x0 = x0 < 0 ? 0 : x0;
  y0 = y0 < 0 ? 0 : y0;
  x1 = x1 > right ? right : x1;
  y1 = y1 > bottom ? bottom : y1;
  if (x0 > x1 || y0 > y1) return false;
  setup.x0 = static_cast<std::int16_t>(x0);
  setup.y0 = static_cast<std::int16_t>(y0);
  setup.x1 = static_cast<std::int16_t>(x1);
  setup.y1 = static_cast<std::int16_t>(y1);
  return true;
}

// Whether two corners or more are too far for 64-bit edge functions is a property of the triangle, not of the pixel.
bool is_huge(const Frame& frame, std::int64_t triangle) {
  for (int i = 0; i < 3; ++i)
    if (frame.slot.vertices[frame.triangles[triangle * 3 + i]].state == kHuge) return true;
  return false;
}

template <class I>
bool set_up_large_as(const Frame& frame, std::int64_t triangle, Setup& setup) {
  const Wide<I> wide = set_up_wide<I>(frame, triangle);
  setup.triangle = ~static_cast<std::int32_t>(triangle);
  return wide.visible && box_of(frame, wide, setup);
}

bool set_up_large(const Frame& frame, std::int64_t triangle, Setup& setup) {
  return is_huge(frame, triangle) ? set_up_large_as<Int128>(frame, triangle, setup)
                                  : set_up_large_as<std::int64_t>(frame, triangle, setup);
}

enum : std::int32_t { kDrop = 0, kKeepSmall = 1, kKeepLarge = 2 };

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

// Corners of a chunk's triangles, coordinate by coordinate, and what becomes of each.
struct Corners {
  alignas(64) std::int32_t x[3][kChunk], y[3][kChunk];
  alignas(64) float z[3][kChunk];
  alignas(64) std::int32_t state[kChunk], keep[kChunk], area[kChunk];
  alignas(64) std::int32_t x0[kChunk], y0[kChunk], x1[kChunk], y1[kChunk];
};

bool gather_corners(const Frame& frame, std::int64_t first, std::int64_t count, Corners& c) {
  const std::uint32_t vertices = static_cast<std::uint32_t>(frame.plan->vertices);
  std::uint32_t bad = 0;
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int32_t* index = frame.triangles + (first + t) * 3;
    std::int32_t state = 0;
    for (int i = 0; i < 3; ++i) {
      const std::uint32_t v = static_cast<std::uint32_t>(index[i]);
      bad |= v >= vertices ? 1u : 0u;
      const Vertex& vertex = frame.slot.vertices[v < vertices ? v : 0];
      c.x[i][t] = vertex.x;
      c.y[i][t] = vertex.y;
      c.z[i][t] = vertex.z;
      state |= vertex.state;
    }
    c.state[t] = state;
  }
  return bad == 0;
}

void classify(const Frame& frame, std::int64_t count, Corners& c) {
  const std::int32_t right = static_cast<std::int32_t>(frame.plan->width) - 1;
  const std::int32_t bottom = static_cast<std::int32_t>(frame.plan->height) - 1;
  const std::int32_t cull = frame.cull ? 1 : 0;
#pragma GCC ivdep
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int32_t low_x = smallest(c.x[0][t], c.x[1][t], c.x[2][t]);
    const std::int32_t high_x = largest(c.x[0][t], c.x[1][t], c.x[2][t]);
    const std::int32_t low_y = smallest(c.y[0][t], c.y[1][t], c.y[2][t]);
    const std::int32_t high_y = largest(c.y[0][t], c.y[1][t], c.y[2][t]);
    const std::int32_t x0 = largest(first_centre(low_x), 0, 0), y0 = largest(first_centre(low_y), 0, 0);
    const std::int32_t x1 = smallest(last_centre(high_x), right, right);
    const std::int32_t y1 = smallest(last_centre(high_y), bottom, bottom);
    const std::int32_t large = ((high_x - low_x) > kSmallExtent) | ((high_y - low_y) > kSmallExtent);
    // Unsigned, since it may wrap for the large, whose area is not used.
    const std::uint32_t ux = static_cast<std::uint32_t>(c.x[1][t] - c.x[0][t]),
                        uy = static_cast<std::uint32_t>(c.y[1][t] - c.y[0][t]);
    const std::uint32_t vx = static_cast<std::uint32_t>(c.x[2][t] - c.x[0][t]),
                        vy = static_cast<std::uint32_t>(c.y[2][t] - c.y[0][t]);
    const std::int32_t area = static_cast<std::int32_t>(ux * vy - vx * uy);
    const std::int32_t box = (x0 <= x1) & (y0 <= y1);
    const std::int32_t small = box & (area != 0) & (1 ^ (cull & (area > 0)));
    const std::int32_t snapped = c.state[t] == kSnapped, huge = c.state[t] == kHuge;
    c.area[t] = area;
    c.x0[t] = x0;
    c.y0[t] = y0;
    c.x1[t] = x1;
    c.y1[t] = y1;
    c.keep[t] = (snapped & (1 ^ large) & small) | (((snapped & large & box) | huge) << 1);
  }
}

FF_INLINE void fill_small(const Corners& c, std::int64_t t, std::int64_t triangle, Setup& s) {
  const std::int32_t area = c.area[t], sign = area > 0 ? 1 : -1;
  const std::int32_t x[3] = {c.x[0][t], c.x[1][t], c.x[2][t]}, y[3] = {c.y[0][t], c.y[1][t], c.y[2][t]};
  const Edge<std::int32_t> edge0 = edge_between(x[1], y[1], x[2], y[2], sign);
  const Edge<std::int32_t> edge1 = edge_between(x[2], y[2], x[0], y[0], sign);
  const Edge<std::int32_t> edge2 = edge_between(x[0], y[0], x[1], y[1], sign);
  const std::int32_t px = centre(c.x0[t]), py = centre(c.y0[t]);
  s.x0 = static_cast<std::int16_t>(c.x0[t]);
  s.y0 = static_cast<std::int16_t>(c.y0[t]);
  s.x1 = static_cast<std::int16_t>(c.x1[t]);
  s.y1 = static_cast<std::int16_t>(c.y1[t]);
  s.e1 = edge_at(edge1, x[2], y[2], px, py);
  s.e2 = edge_at(edge2, x[0], y[0], px, py);
  s.dx1 = edge1.per_x * kSubpixels;
  s.dy1 = edge1.per_y * kSubpixels;
  s.dx2 = edge2.per_x * kSubpixels;
  s.dy2 = edge2.per_y * kSubpixels;
  s.inside0 = area * sign + edge_bias(edge0);
  s.bias1 = edge_bias(edge1);
  s.bias2 = edge_bias(edge2);
  s.z0 = c.z[0][t];
  s.dz1 = c.z[1][t] - c.z[0][t];
  s.dz2 = c.z[2][t] - c.z[0][t];
  s.inverse_area = 1.0f / static_cast<float>(area * sign);
  s.triangle = static_cast<std::int32_t>(triangle);
}

bool set_up_chunk(const Frame& frame, std::int64_t chunk) {
  Corners corners;
  const std::int64_t first = chunk * kChunk;
  const std::int64_t count = frame.plan->triangles - first < kChunk ? frame.plan->triangles - first : kChunk;
  frame.slot.counts[chunk] = 0;
  if (!gather_corners(frame, first, count, corners)) return false;
  classify(frame, count, corners);
  Setup* out = frame.slot.setups + chunk * kChunk;
  for (std::int64_t t = 0; t < count; ++t) {
    if (corners.keep[t] == kDrop) continue;
    if (corners.keep[t] == kKeepSmall) {
      fill_small(corners, t, first + t, *out++);
    } else if (set_up_large(frame, first + t, *out)) {
      ++out;
    }
  }
  frame.slot.counts[chunk] = static_cast<std::int32_t>(out - (frame.slot.setups + chunk * kChunk));
  return true;
}

// ---- coverage
// -------------------------------------------------------------------------------------------------------------

template <int N>
FF_INLINE Vec<std::int32_t, N> ramp() {
  Vec<std::int32_t, N> lane;
  for (int i = 0; i < N; ++i) lane[i] = i;
  return lane;
}

template <int N>
FF_INLINE void write_nearer(std::int32_t* id, float* depth, std::int32_t slot, Vec<std::int32_t, N> covered,
                            Vec<float, N> z) {
  const Vec<float, N> held = load<N>(depth);
  const Vec<std::int32_t, N> wins = covered & (z < held);
  store<N>(depth, wins ? z : held);
  store<N>(id, wins ? splat<Vec<std::int32_t, N>>(slot) : load<N>(id));
}

// Spans start early rather than run over the end of a row: a pixel that is tested twice changes nothing.
template <int N>
FF_INLINE std::int64_t span_start(std::int64_t x, std::int64_t width) {
  return x + N <= width ? x : width - N;
}

template <int N>
FF_INLINE void draw_small(const Frame& frame, const Setup& s, std::int32_t slot, std::int64_t row0, std::int64_t row1) {
  using Int = Vec<std::int32_t, N>;
  using Float = Vec<float, N>;
  const std::int64_t width = frame.plan->width;
  for (std::int64_t x = s.x0; x <= s.x1; x += N) {
    const std::int64_t start = span_start<N>(x, width);
    const std::int32_t right = static_cast<std::int32_t>(start - s.x0), down = static_cast<std::int32_t>(row0 - s.y0);
    Int e1 = ramp<N>() * s.dx1 + (s.e1 + right * s.dx1 + down * s.dy1);
    Int e2 = ramp<N>() * s.dx2 + (s.e2 + right * s.dx2 + down * s.dy2);
    std::int32_t* id = frame.id + row0 * width + start;
    float* depth = frame.depth + row0 * width + start;
    for (std::int64_t row = row0; row <= row1; ++row) {
      const Int covered = ((e1 + s.bias1) | (e2 + s.bias2) | (s.inside0 - e1 - e2)) >= 0;
      const Float b1 = __builtin_convertvector(e1, Float) * s.inverse_area;
      const Float b2 = __builtin_convertvector(e2, Float) * s.inverse_area;
      write_nearer<N>(id, depth, slot, covered, interpolate(b1, b2, s.z0, s.dz1, s.dz2));
      e1 += s.dy1;
      e2 += s.dy2;
      id += width;
      depth += width;
    }
  }
}

template <class I>
void draw_wide(const Frame& frame, const Wide<I>& wide, const Setup& s, std::int32_t slot, std::int64_t row0,
               std::int64_t row1) {
  for (std::int64_t row = row0; row <= row1; ++row) {
    const I py = centre<I>(row);
    I e[3];
    for (int i = 0; i < 3; ++i) {
      const int from = (i + 1) % 3;
      e[i] = edge_at<I>(wide.edge[i], wide.x[from], wide.y[from], centre<I>(s.x0), py);
    }
    const std::int64_t base = row * frame.plan->width;
    for (std::int64_t x = s.x0; x <= s.x1; ++x) {
      if (((e[0] + wide.bias[0]) | (e[1] + wide.bias[1]) | (e[2] + wide.bias[2])) >= 0) {
        const float b1 = static_cast<float>(e[1]) * wide.inverse_area,
                    b2 = static_cast<float>(e[2]) * wide.inverse_area;
        const float z = interpolate(b1, b2, wide.z0, wide.dz1, wide.dz2);
        if (z < frame.depth[base + x]) {
          frame.depth[base + x] = z;
          frame.id[base + x] = slot;
        }
      }
      for (int i = 0; i < 3; ++i) e[i] += wide.edge[i].per_x * kSubpixels;
    }
  }
}

void draw_large(const Frame& frame, const Setup& s, std::int32_t slot, std::int64_t row0, std::int64_t row1) {
  const std::int64_t triangle = ~s.triangle;
  if (is_huge(frame, triangle)) {
    draw_wide(frame, set_up_wide<Int128>(frame, triangle), s, slot, row0, row1);
  } else {
    draw_wide(frame, set_up_wide<std::int64_t>(frame, triangle), s, slot, row0, row1);
  }
}

template <int N>
void draw_rows(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = frame.plan->width;
  std::memset(frame.id + begin * width, 0xff, static_cast<std::size_t>((end - begin) * width) * sizeof(std::int32_t));
  for (std::int64_t i = begin * width; i < end * width; ++i) frame.depth[i] = __builtin_inff();
  for (std::int64_t chunk = 0; chunk < frame.plan->chunks; ++chunk) {
    const std::int64_t first = chunk * kChunk, last = first + frame.slot.counts[chunk];
    for (std::int64_t i = first; i < last; ++i) {
      const Setup& s = frame.slot.setups[i];
      const std::int64_t row0 = s.y0 > begin ? s.y0 : begin, row1 = s.y1 < end - 1 ? s.y1 : end - 1;
      if (row0 > row1) continue;
      if (s.triangle >= 0) {
        draw_small<N>(frame, s, static_cast<std::int32_t>(i), row0, row1);
      } else {
        draw_large(frame, s, static_cast<std::int32_t>(i), row0, row1);
      }
    }
  }
}

// ---- barycentrics
// ---------------------------------------------------------------------------------------------------------

template <class I>
void resolve_wide(const Frame& frame, std::int64_t triangle, std::int64_t row, std::int64_t x, std::int64_t count,
                  float* bary) {
  const Wide<I> wide = set_up_wide<I>(frame, triangle);
  for (std::int64_t i = 0; i < count; ++i) {
    const I px = centre<I>(x + i), py = centre<I>(row);
    bary[2 * i] = static_cast<float>(edge_at<I>(wide.edge[1], wide.x[2], wide.y[2], px, py)) * wide.inverse_area;
    bary[2 * i + 1] = static_cast<float>(edge_at<I>(wide.edge[2], wide.x[0], wide.y[0], px, py)) * wide.inverse_area;
  }
}

// Replaces set-up slots by triangle indices and fills in the barycentrics.
void resolve_row(const Frame& frame, std::int64_t row) {
  const std::int64_t width = frame.plan->width;
  std::int32_t* id = frame.id + row * width;
  float* bary = frame.bary + row * width * 2;
  for (std::int64_t x = 0; x < width; ++x) {
    if (id[x] < 0) {
      bary[2 * x] = 0.0f;
      bary[2 * x + 1] = 0.0f;
      continue;
    }
    const std::int32_t slot = id[x];
    const Setup& s = frame.slot.setups[slot];
    if (s.triangle >= 0) {
      const std::int32_t right = static_cast<std::int32_t>(x) - s.x0, down = static_cast<std::int32_t>(row) - s.y0;
      bary[2 * x] = static_cast<float>(s.e1 + right * s.dx1 + down * s.dy1) * s.inverse_area;
      bary[2 * x + 1] = static_cast<float>(s.e2 + right * s.dx2 + down * s.dy2) * s.inverse_area;
      id[x] = s.triangle;
    } else {
      const std::int64_t triangle = ~s.triangle, start = x;
      while (x + 1 < width && id[x + 1] == slot) ++x;
      const std::int64_t count = x + 1 - start;
      if (is_huge(frame, triangle)) {
        resolve_wide<Int128>(frame, triangle, row, start, count, bary + 2 * start);
      } else {
        resolve_wide<std::int64_t>(frame, triangle, row, start, count, bary + 2 * start);
      }
      for (std::int64_t i = start; i <= x; ++i) id[i] = static_cast<std::int32_t>(triangle);
    }
  }
}

// ---- frames
// ---------------------------------------------------------------------------------------------------------------

Frame frame_at(const Rasterize& op, const Plan& plan, std::int64_t index, std::int64_t slot) {
  Arena arena(op.workspace.data + slot * plan.slot_bytes);
  const std::int64_t pixels = plan.height * plan.width;
  Frame frame;
  frame.plan = &plan;
  frame.slot = take_slot(op, plan, arena);
  frame.screen = op.screen.data + index * plan.vertices * 3;
  frame.triangles = op.triangles.data;
  frame.id = op.triangle_id.data + index * pixels;
  frame.bary = op.bary.data + index * pixels * 2;
  frame.depth = op.depth.data != nullptr ? op.depth.data + index * pixels : frame.slot.depth;
  frame.cull = op.cull_backfaces != 0;
  return frame;
}

bool draw_frame(const Frame& frame, int threads) {
  constexpr std::int64_t kVerticesPerTask = 4096, kChunksPerTask = 8;
  const Plan& plan = *frame.plan;
  parallel_for((plan.vertices + kVerticesPerTask - 1) / kVerticesPerTask, threads, [&](std::int64_t task) {
    const std::int64_t begin = task * kVerticesPerTask, end = begin + kVerticesPerTask;
    snap_vertices(frame, begin, end < plan.vertices ? end : plan.vertices);
  });
  if (plan.vertices == 0 && plan.triangles > 0) return false;
  bool ok = true;
  parallel_for((plan.chunks + kChunksPerTask - 1) / kChunksPerTask, threads, [&](std::int64_t task) {
    for (std::int64_t c = task * kChunksPerTask; c < (task + 1) * kChunksPerTask && c < plan.chunks; ++c)
      if (!set_up_chunk(frame, c)) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
  });
  if (!ok) return false;
  const std::int64_t rows = threads > 1 ? kBandRows : plan.height > 0 ? plan.height : 1;
  parallel_for((plan.height + rows - 1) / rows, threads, [&](std::int64_t band) {
    const std::int64_t begin = band * rows, end = begin + rows < plan.height ? begin + rows : plan.height;
    if (plan.width >= kSpan) {
      draw_rows<kSpan>(frame, begin, end);
    } else {
      draw_rows<1>(frame, begin, end);
    }
    for (std::int64_t row = begin; row < end; ++row) resolve_row(frame, row);
  });
  return true;
}

}  // namespace

std::int64_t workspace_bytes(const Rasterize& op) {
  const Plan plan = make_plan(op);
  return plan.slots * plan.slot_bytes;
}

Status run(const Rasterize& op) {
  const Plan plan = make_plan(op);
  bool ok = true;
  std::int64_t shared = plan.slots > 1 ? plan.frames / plan.slots * plan.slots : 0;
  parallel_for(plan.slots > 1 ? plan.slots : 0, op.threads, [&](std::int64_t slot) {
    for (std::int64_t f = slot; f < shared; f += plan.slots)
      if (!draw_frame(frame_at(op, plan, f, slot), 1)) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
  });
  for (std::int64_t f = shared; f < plan.frames; ++f) ok = draw_frame(frame_at(op, plan, f, 0), op.threads) && ok;
  return ok ? Status::kOk : Status::kTriangleIndexOutOfRange;
}

}  // namespace FF_ISA
}  // namespace fastface
