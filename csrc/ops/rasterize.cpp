// Schedule: snap all vertices, list the triangles that may be seen, draw them. One thread draws chunk by chunk, while
// the lists are in the first-level cache; several threads first list all triangles by bands of rows and then draw the
// bands. Frames of a batch go to different threads. Compiled without contraction to FMA, so that depth comparisons come
// out alike everywhere.
#include "ops/rasterize.h"

#include <cstring>

#include "core/parallel.h"
#include "core/workspace.h"
#include "ops/raster_draw.h"

namespace fastface {
inline namespace FF_ISA {
namespace {

using namespace raster;

constexpr std::int64_t kVerticesPerTask = 4096;
constexpr std::int64_t kBandsPerThread = 3;  // enough for a face in the middle to be shared out

struct Slot {        // everything one frame in flight needs
  Vertex* vertices;  // (V,)
  Sorted sorted;
  float* depth;  // (H, W), when the caller wants none
};

struct Plan {
  std::int64_t frames, slots, slot_bytes;
  Mesh mesh;  // but for what is a frame's own
};

Slot take_slot(const Rasterize& op, const Mesh& mesh, Arena& arena) {
  Slot slot;
  slot.vertices = arena.take<Vertex>(mesh.vertex_count);
  slot.sorted = take_sorted(mesh, Bands::of(mesh.height, pieces(mesh.height, kBandsPerThread * op.threads)), arena);
  slot.depth = op.depth.data != nullptr ? nullptr : arena.take<float>(mesh.height * mesh.width);
  return slot;
}

Plan make_plan(const Rasterize& op) {
  Plan plan;
  plan.frames = op.screen.shape[0];
  plan.mesh.screen = nullptr;
  plan.mesh.vertices = nullptr;
  plan.mesh.triangles = op.triangles.data;
  plan.mesh.vertex_count = op.screen.shape[1];
  plan.mesh.triangle_count = op.triangles.shape[0];
  plan.mesh.height = op.triangle_id.shape[1];
  plan.mesh.width = op.triangle_id.shape[2];
  plan.mesh.cull = op.cull_backfaces != 0;
  plan.slots = plan.frames < op.threads ? plan.frames : op.threads;
  if (plan.slots < 1) plan.slots = 1;
  Arena measure(nullptr);
  take_slot(op, plan.mesh, measure);
  plan.slot_bytes = measure.used();
  return plan;
}

// Beside the index, barycentrics.
struct IdAndBary {
  std::int32_t* id;
  float* bary;
  float* depth;
  std::int64_t stride;

  struct Nothing {};
  FF_INLINE Nothing begin_one(std::int32_t) const { return {}; }
  template <int N>
  FF_INLINE Nothing begin(std::int32_t) const {
    return {};
  }
  FF_INLINE void write_one(Nothing, std::int64_t pixel, float b1, float b2) const {
    bary[2 * pixel] = b1;
    bary[2 * pixel + 1] = b2;
  }
  template <int N>
  FF_INLINE void write(Nothing, std::int64_t pixel, Lanes<N> wins, Vec<float, N> b1, Vec<float, N> b2) const {
    store_pairs_where<N>(bary + 2 * pixel, wins, b1, b2);
  }
};

struct Frame {
  Mesh mesh;
  Slot slot;
  IdAndBary target;
};

Frame frame_at(const Rasterize& op, const Plan& plan, std::int64_t index, std::int64_t slot) {
  Arena arena(op.workspace.data + slot * plan.slot_bytes);
  const std::int64_t pixels = plan.mesh.height * plan.mesh.width;
  Frame frame;
  frame.slot = take_slot(op, plan.mesh, arena);
  frame.mesh = plan.mesh;
  frame.mesh.screen = op.screen.data + index * plan.mesh.vertex_count * 3;
  frame.mesh.vertices = frame.slot.vertices;
  frame.target.id = op.triangle_id.data + index * pixels;
  frame.target.bary = op.bary.data + index * pixels * 2;
  frame.target.depth = op.depth.data != nullptr ? op.depth.data + index * pixels : frame.slot.depth;
  frame.target.stride = plan.mesh.width;
  return frame;
}

void clear_rows(const IdAndBary& target, std::int64_t begin, std::int64_t end) {
  const std::int64_t first = begin * target.stride, last = end * target.stride;
  const std::size_t pixels = static_cast<std::size_t>(last - first);
  if (pixels == 0) return;  // an empty image may have no address
  std::memset(target.id + first, 0xff, pixels * sizeof(std::int32_t));
  std::memset(target.bary + 2 * first, 0, pixels * 2 * sizeof(float));
  for (std::int64_t i = first; i < last; ++i) target.depth[i] = __builtin_inff();
}

void draw_frame(const Frame& frame, int threads) {
  const Mesh& mesh = frame.mesh;
  in_pieces(mesh.vertex_count, kVerticesPerTask, threads,
            [&](std::int64_t begin, std::int64_t end) { snap_vertices(mesh, begin, end); });
  if (threads <= 1) {
    clear_rows(frame.target, 0, mesh.height);
    draw_at_once(frame.target, mesh, *frame.slot.sorted.lists);
    return;
  }
  in_pieces(mesh.triangle_count, kTrianglesPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    sort_triangles(mesh, begin, end, frame.slot.sorted);
  });
  const Sorted& sorted = frame.slot.sorted;
  parallel_for(sorted.bands.count, threads, [&](std::int64_t band) {
    clear_rows(frame.target, sorted.bands.begin(band), sorted.bands.end(band));
    draw_band(frame.target, mesh, sorted, static_cast<int>(band));
  });
}

}  // namespace

std::int64_t workspace_bytes(const Rasterize& op) {
  const Plan plan = make_plan(op);
  return plan.slots * plan.slot_bytes;
}

Status run(const Rasterize& op) {
  const Plan plan = make_plan(op);
  if (!indices_valid(op.triangles.data, 3 * op.triangles.shape[0], op.screen.shape[1]) && plan.frames > 0)
    return Status::kTriangleIndexOutOfRange;
  const std::int64_t shared = plan.slots > 1 ? plan.frames / plan.slots * plan.slots : 0;
  parallel_for(plan.slots > 1 ? plan.slots : 0, op.threads, [&](std::int64_t slot) {
    for (std::int64_t f = slot; f < shared; f += plan.slots) draw_frame(frame_at(op, plan, f, slot), 1);
  });
  for (std::int64_t f = shared; f < plan.frames; ++f) draw_frame(frame_at(op, plan, f, 0), op.threads);
  return Status::kOk;
}

}  // namespace FF_ISA
}  // namespace fastface
