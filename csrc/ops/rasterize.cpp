// Schedule: snap all vertices, set up triangles in chunks, draw the surviving ones in index order. One thread draws
// each chunk while its set-up is in the first-level cache; several threads set up all chunks first and then draw bands
// of rows, each going through all chunks. Frames of a batch go to different threads. Compiled without contraction to
// FMA, so that depth comparisons come out alike everywhere.
#include "ops/rasterize.h"

#include <cstring>

#include "core/parallel.h"
#include "core/simd.h"
#include "core/workspace.h"
#include "ops/rasterize_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace {

__extension__ typedef __int128 Int128;

constexpr std::int64_t kChunk = 256;                    // triangles set up together
constexpr std::int32_t kSmallExtent = 64 * kSubpixels;  // edge functions of smaller triangles fit 32 bits
constexpr double kSnapLimit = 536870912.0;              // 2^29 subpixels: differences fit 32 bits, edge functions 64
constexpr double kHugeLimit = 281474976710656.0;        // 2^48 subpixels: edge functions fit 128 bits
constexpr std::int64_t kBandsPerThread = 3;             // enough for a face in the middle to be shared out
constexpr int kSpan = kLanes < 8 ? kLanes : 8;          // pixels tested together

enum : std::int32_t { kSnapped = 0, kHuge = 1, kRejected = 2 };

struct alignas(16) Vertex {
  std::int32_t x, y;  // subpixels
  float z;
  std::int32_t state;
};

enum : std::int32_t { kDrop = 0, kKeepSmall = 1, kKeepLarge = 2 };

// The set-up of a chunk's triangles, field by field so that it is computed by whole vectors, culled triangles included.
// Of triangles too large for 32 bits only the box is right.
struct Setup {
  std::int32_t x0[kChunk], y0[kChunk], x1[kChunk], y1[kChunk];      // covered box, clipped to the image, inclusive
  std::int32_t e1[kChunk], e2[kChunk];                              // edge functions of vertices 1 and 2 at (x0, y0)
  std::int32_t dx1[kChunk], dy1[kChunk], dx2[kChunk], dy2[kChunk];  // and their steps per pixel
  std::int32_t inside0[kChunk];                                     // doubled area plus the bias of edge 0
  std::int32_t bias1[kChunk], bias2[kChunk];
  float z0[kChunk], dz1[kChunk], dz2[kChunk], inverse_area[kChunk];
  std::int32_t keep[kChunk];
  std::int32_t order[kChunk];  // the triangles to draw, by number within the chunk
  std::int32_t count;
  std::int32_t top, bottom;  // rows they span
};

struct Slot {        // everything one frame in flight needs
  Vertex* vertices;  // (V,)
  Setup* setups;     // (chunks,), or one where chunks are drawn at once
  float* depth;      // (H, W), when the caller wants none
};

struct Plan {
  std::int64_t frames, vertices, triangles, height, width, chunks, slots;
  std::int64_t slot_bytes;
};

Slot take_slot(const Rasterize& op, const Plan& plan, Arena& arena) {
  Slot slot;
  slot.vertices = arena.take<Vertex>(plan.vertices);
  slot.setups = arena.take<Setup>(op.threads > 1 ? plan.chunks : 1);
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

void snap_vertices(const Frame& frame, std::int64_t begin, std::int64_t end) {
  constexpr float kNear = static_cast<float>(kSnapLimit), kFar = static_cast<float>(kHugeLimit);
  for (std::int64_t v = begin; v < end; ++v) {
    const float* p = frame.screen + v * 3;
    const float x = p[0] * static_cast<float>(kSubpixels), y = p[1] * static_cast<float>(kSubpixels), z = p[2];
    const bool near = (__builtin_fabsf(x) <= kNear) & (__builtin_fabsf(y) <= kNear);
    const bool far = (__builtin_fabsf(x) <= kFar) & (__builtin_fabsf(y) <= kFar) & (z > 0.0f) & (z <= __FLT_MAX__);
    Vertex& out = frame.slot.vertices[v];
    out.x = static_cast<std::int32_t>(__builtin_rintf(near ? x : 0.0f));
    out.y = static_cast<std::int32_t>(__builtin_rintf(near ? y : 0.0f));
    out.z = z;
    out.state = far ? (near ? kSnapped : kHuge) : kRejected;
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
  const I area = doubled_area(wide.x[0], wide.y[0], wide.x[1], wide.y[1], wide.x[2], wide.y[2]);
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

bool indices_valid(const std::int32_t* index, std::int64_t count, std::int64_t vertices) {
  std::uint32_t top = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t v = static_cast<std::uint32_t>(index[i]);
    top = v > top ? v : top;
  }
  return count == 0 || top < static_cast<std::uint64_t>(vertices);
}

// Unsigned inside: products wrap for large and rejected triangles, which do not use them.
void set_up_small(const Frame& frame, std::int64_t count, const Vertex* FF_RESTRICT a, const Vertex* FF_RESTRICT b,
                  const Vertex* FF_RESTRICT c, Setup& FF_RESTRICT s) {
  using U = std::uint32_t;
  using S = std::int32_t;
  const S width = static_cast<S>(frame.plan->width), height = static_cast<S>(frame.plan->height);
  const S cull = frame.cull ? 1 : 0;
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

bool is_huge(const Frame& frame, std::int64_t triangle) {
  for (int i = 0; i < 3; ++i)
    if (frame.slot.vertices[frame.triangles[triangle * 3 + i]].state == kHuge) return true;
  return false;
}

template <class I>
bool set_up_box(const Frame& frame, std::int64_t triangle, Setup& s, std::int64_t t) {
  const Wide<I> wide = set_up_wide<I>(frame, triangle);
  const I width = frame.plan->width, height = frame.plan->height;
  s.x0[t] = clip_first<I>(smallest(wide.x[0], wide.x[1], wide.x[2]), width);
  s.x1[t] = clip_last<I>(largest(wide.x[0], wide.x[1], wide.x[2]), width);
  s.y0[t] = clip_first<I>(smallest(wide.y[0], wide.y[1], wide.y[2]), height);
  s.y1[t] = clip_last<I>(largest(wide.y[0], wide.y[1], wide.y[2]), height);
  return wide.visible && s.x0[t] <= s.x1[t] && s.y0[t] <= s.y1[t];
}

// False when an index is out of range.
bool set_up_chunk(const Frame& frame, std::int64_t chunk, Setup& s) {
  const std::int64_t first = chunk * kChunk;
  const std::int64_t count = frame.plan->triangles - first < kChunk ? frame.plan->triangles - first : kChunk;
  const std::int32_t* index = frame.triangles + first * 3;
  s.count = 0;
  if (!indices_valid(index, count * 3, frame.plan->vertices)) return false;
  Vertex corner[3][kChunk];
  for (std::int64_t t = 0; t < count; ++t)
    for (int i = 0; i < 3; ++i) corner[i][t] = frame.slot.vertices[index[3 * t + i]];
  set_up_small(frame, count, corner[0], corner[1], corner[2], s);
  std::int32_t kept = 0, top = INT32_MAX, bottom = -1;
  for (std::int64_t t = 0; t < count; ++t) {
    if (s.keep[t] == kKeepLarge) {
      const bool visible = is_huge(frame, first + t) ? set_up_box<Int128>(frame, first + t, s, t)
                                                     : set_up_box<std::int64_t>(frame, first + t, s, t);
      s.keep[t] = visible ? kKeepLarge : kDrop;
    }
    s.order[kept] = static_cast<std::int32_t>(t);
    // Without a branch, which would be mispredicted every other time.
    const std::int32_t drawn = s.keep[t] != kDrop, dropped = drawn - 1;
    const std::int32_t y0 = s.y0[t] | (dropped & INT32_MAX), y1 = s.y1[t] | dropped;
    kept += drawn;
    top = y0 < top ? y0 : top;
    bottom = y1 > bottom ? y1 : bottom;
  }
  s.count = kept;
  s.top = top;
  s.bottom = bottom;
  return true;
}

// ---- coverage

template <int N>
FF_INLINE Vec<std::int32_t, N> ramp() {
  Vec<std::int32_t, N> lane;
  for (int i = 0; i < N; ++i) lane[i] = i;
  return lane;
}

// Where `covered` and nearer than what is there: depth, index and, interleaved, barycentrics.
template <int N>
FF_INLINE void write_nearer(const Frame& frame, std::int64_t pixel, std::int32_t triangle, Vec<std::int32_t, N> covered,
                            Vec<float, N> z, Vec<float, N> b1, Vec<float, N> b2) {
  float* depth = frame.depth + pixel;
  const Vec<float, N> held = load<N>(depth);
  const Vec<std::int32_t, N> wins = covered & (z < held);
  store<N>(depth, wins ? z : held);
  std::int32_t* id = frame.id + pixel;
  store<N>(id, wins ? splat<Vec<std::int32_t, N>>(triangle) : load<N>(id));
  float* bary = frame.bary + 2 * pixel;
  if constexpr (N == 1) {
    bary[0] = wins[0] != 0 ? b1[0] : bary[0];
    bary[1] = wins[0] != 0 ? b2[0] : bary[1];
  } else {
    Vec<float, N> low, high;
    Vec<std::int32_t, N> low_wins, high_wins;
    zip(b1, b2, low, high);
    zip(wins, wins, low_wins, high_wins);
    store<N>(bary, low_wins ? low : load<N>(bary));
    store<N>(bary + N, high_wins ? high : load<N>(bary + N));
  }
}

// Spans start early rather than run over the end of a row: a pixel that is tested twice changes nothing.
template <int N>
FF_INLINE std::int64_t span_start(std::int64_t x, std::int64_t width) {
  return x + N <= width ? x : width - N;
}

template <int N>
FF_INLINE void draw_small(const Frame& frame, const Setup& s, std::int64_t t, std::int32_t triangle, std::int64_t row0,
                          std::int64_t row1) {
  using Int = Vec<std::int32_t, N>;
  using Float = Vec<float, N>;
  const std::int64_t width = frame.plan->width;
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
      const Int covered = ((e1 + bias1) | (e2 + bias2) | (inside0 - e1 - e2)) >= 0;
      const Float b1 = __builtin_convertvector(e1, Float) * inverse_area;
      const Float b2 = __builtin_convertvector(e2, Float) * inverse_area;
      write_nearer<N>(frame, pixel, triangle, covered, interpolate(b1, b2, z0, dz1, dz2), b1, b2);
      e1 += dy1;
      e2 += dy2;
      pixel += width;
    }
  }
}

template <class I>
void draw_wide(const Frame& frame, const Setup& s, std::int64_t t, std::int64_t triangle, std::int64_t row0,
               std::int64_t row1) {
  const Wide<I> wide = set_up_wide<I>(frame, triangle);
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
        const std::int64_t pixel = row * frame.plan->width + x;
        if (z < frame.depth[pixel]) {
          frame.depth[pixel] = z;
          frame.id[pixel] = static_cast<std::int32_t>(triangle);
          frame.bary[2 * pixel] = b1;
          frame.bary[2 * pixel + 1] = b2;
        }
      }
      for (int i = 0; i < 3; ++i) e[i] += wide.edge[i].per_x * kSubpixels;
    }
  }
}

void draw_large(const Frame& frame, const Setup& s, std::int64_t t, std::int64_t triangle, std::int64_t row0,
                std::int64_t row1) {
  if (is_huge(frame, triangle)) {
    draw_wide<Int128>(frame, s, t, triangle, row0, row1);
  } else {
    draw_wide<std::int64_t>(frame, s, t, triangle, row0, row1);
  }
}

void clear_rows(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const std::int64_t first = begin * frame.plan->width, last = end * frame.plan->width;
  const std::size_t pixels = static_cast<std::size_t>(last - first);
  if (pixels == 0) return;  // an empty image may have no address
  std::memset(frame.id + first, 0xff, pixels * sizeof(std::int32_t));
  std::memset(frame.bary + 2 * first, 0, pixels * 2 * sizeof(float));
  for (std::int64_t i = first; i < last; ++i) frame.depth[i] = __builtin_inff();
}

template <int N>
void draw_chunk(const Frame& frame, const Setup& s, std::int64_t chunk, std::int64_t begin, std::int64_t end) {
  for (std::int32_t k = 0; k < s.count; ++k) {
    const std::int64_t t = s.order[k], triangle = chunk * kChunk + t;
    const std::int64_t row0 = s.y0[t] > begin ? s.y0[t] : begin, row1 = s.y1[t] < end - 1 ? s.y1[t] : end - 1;
    if (row0 > row1) continue;
    if (s.keep[t] == kKeepSmall) {
      draw_small<N>(frame, s, t, static_cast<std::int32_t>(triangle), row0, row1);
    } else {
      draw_large(frame, s, t, triangle, row0, row1);
    }
  }
}

void draw(const Frame& frame, const Setup& s, std::int64_t chunk, std::int64_t begin, std::int64_t end) {
  if (s.count == 0 || s.top >= end || s.bottom < begin) return;
  if (frame.plan->width >= kSpan) {
    draw_chunk<kSpan>(frame, s, chunk, begin, end);
  } else {
    draw_chunk<1>(frame, s, chunk, begin, end);
  }
}

// ---- frames

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

// Both return false when an index is out of range.
bool draw_alone(const Frame& frame) {
  const Plan& plan = *frame.plan;
  snap_vertices(frame, 0, plan.vertices);
  clear_rows(frame, 0, plan.height);
  for (std::int64_t chunk = 0; chunk < plan.chunks; ++chunk) {
    if (!set_up_chunk(frame, chunk, *frame.slot.setups)) return false;
    draw(frame, *frame.slot.setups, chunk, 0, plan.height);
  }
  return true;
}

bool draw_together(const Frame& frame, int threads) {
  constexpr std::int64_t kVerticesPerTask = 4096, kChunksPerTask = 4;
  const Plan& plan = *frame.plan;
  parallel_for((plan.vertices + kVerticesPerTask - 1) / kVerticesPerTask, threads, [&](std::int64_t task) {
    const std::int64_t begin = task * kVerticesPerTask, end = begin + kVerticesPerTask;
    snap_vertices(frame, begin, end < plan.vertices ? end : plan.vertices);
  });
  bool ok = true;
  parallel_for((plan.chunks + kChunksPerTask - 1) / kChunksPerTask, threads, [&](std::int64_t task) {
    for (std::int64_t c = task * kChunksPerTask; c < (task + 1) * kChunksPerTask && c < plan.chunks; ++c)
      if (!set_up_chunk(frame, c, frame.slot.setups[c])) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
  });
  if (!ok) return false;
  const std::int64_t bands = kBandsPerThread * threads;
  parallel_for(bands, threads, [&](std::int64_t band) {
    const std::int64_t begin = plan.height * band / bands, end = plan.height * (band + 1) / bands;
    clear_rows(frame, begin, end);
    for (std::int64_t c = 0; c < plan.chunks; ++c) draw(frame, frame.slot.setups[c], c, begin, end);
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
  const std::int64_t shared = plan.slots > 1 ? plan.frames / plan.slots * plan.slots : 0;
  parallel_for(plan.slots > 1 ? plan.slots : 0, op.threads, [&](std::int64_t slot) {
    for (std::int64_t f = slot; f < shared; f += plan.slots)
      if (!draw_alone(frame_at(op, plan, f, slot))) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
  });
  for (std::int64_t f = shared; f < plan.frames; ++f) {
    const Frame frame = frame_at(op, plan, f, 0);
    ok = (op.threads > 1 ? draw_together(frame, op.threads) : draw_alone(frame)) && ok;
  }
  return ok ? Status::kOk : Status::kTriangleIndexOutOfRange;
}

}  // namespace FF_ISA
}  // namespace fastface
