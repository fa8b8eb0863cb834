// Schedule: the frames of a batch go to the threads, a few at a time, which are deformed together, so that they share
// every load of the basis, and then taken to their images one by one. The stages of a single frame are shared out:
// vertices, faces, triangles, then bands of rows that are drawn and coloured while they are in the cache.
#include "ops/render.h"

#include <cstring>

#include "core/parallel.h"
#include "core/workspace.h"
#include "ops/deform.h"
#include "ops/render_pixels.h"

namespace fastface {
inline namespace FF_ISA {
namespace {

using namespace rendering;

constexpr std::int64_t kTogether = 4;  // frames deformed at once
constexpr std::int64_t kVerticesPerTask = 1024;
constexpr std::int64_t kFacesPerTask = 2048;
constexpr std::int64_t kFacesPerRow = 64;  // a row of the folds is as much work
constexpr std::int64_t kPhotoRowsPerTask = 64;
constexpr std::int64_t kSoftRowsPerTask = 32;
constexpr std::int64_t kBandPixels = 24576;    // whose planes fit the second-level cache
constexpr std::int64_t kLeastBandRows = 16;
constexpr std::int64_t kBandsPerThread = 3;    // at least, of a shared frame
constexpr std::int64_t kSoftMargin = 2;  // a softened pixel is next to a drawn one and looks at those next to it

constexpr std::int64_t kMostThreads = 4096;
constexpr std::int64_t kBusyBytes = kMostThreads * static_cast<std::int64_t>(sizeof(std::int32_t));

// The number of one of `count` things that no other thread works with; there are as many as threads.
std::int64_t borrow(std::int32_t* busy, std::int64_t count) {
  for (std::int64_t i = 0;; i = (i + 1) % count)
    if (__atomic_exchange_n(busy + i, 1, __ATOMIC_ACQUIRE) == 0) return i;
}
void give_back(std::int32_t* busy, std::int64_t number) { __atomic_store_n(busy + number, 0, __ATOMIC_RELEASE); }

struct Slot {
  shading::Frame shade;
  float *positions, *screen;  // of the frames that are deformed together
  raster::Vertex* vertices;
  raster::Sorted sorted;
  Planes* planes;  // (threads,) of a shared frame
  std::int32_t* busy;  // (threads,) not 0 while planes are in use
  unsigned char* deform;
};

struct Plan {
  std::int64_t frames, together, groups;
  std::int64_t slots, slot_bytes;
  std::int64_t width, height;
  std::int64_t workers;  // threads that share a slot's frame
  raster::Bands bands;
  Shade face;  // with the shapes of one frame
  Deform deform;
  std::int64_t deform_bytes;
};

raster::Mesh mesh_of(const Plan& plan) {
  raster::Mesh mesh;
  mesh.screen = nullptr;
  mesh.vertices = nullptr;
  mesh.triangles = plan.face.triangles.data;
  mesh.vertex_count = plan.face.positions.shape[1];
  mesh.triangle_count = plan.face.triangles.shape[0];
  mesh.height = plan.height;
  mesh.width = plan.width;
  mesh.cull = true;
  return mesh;
}

Slot take_slot(const Plan& plan, Arena& arena) {
  Slot slot;
  const std::int64_t vertices = plan.face.positions.shape[1], pixels = plan.height * plan.width;
  slot.shade = shading::take_frame(plan.face, arena);
  slot.shade.source = arena.take<float>(3 * pixels);
  slot.shade.mask = arena.take<std::uint8_t>(pixels);
  slot.positions = arena.take<float>(3 * vertices * plan.together);
  slot.screen = arena.take<float>(3 * vertices * plan.together);
  slot.vertices = arena.take<raster::Vertex>(vertices);
  slot.sorted = raster::take_sorted(mesh_of(plan), plan.bands, arena);
  slot.planes = arena.take<Planes>(plan.workers);
  slot.busy = arena.take<std::int32_t>(plan.workers);
  for (std::int64_t i = 0; i < plan.workers; ++i) {
    Planes planes;
    planes.stride = Planes::stride_for(plan.width);
    const std::int64_t area = plan.bands.rows * planes.stride / 1024 * 1024 + 1024 + Planes::kApart;
    planes.depth = arena.take<float>(area);
    planes.id = arena.take<std::int32_t>(area);
    for (float** plane : {&planes.dx, &planes.dy, &planes.gain}) *plane = arena.take<float>(area);
    planes.motion = slot.shade.motion;
    planes.triangles = plan.face.triangles.data;
    planes.layer = plan.face.layer.data;
    if (slot.planes == nullptr) continue;
    slot.planes[i] = planes;
    slot.busy[i] = 0;
  }
  slot.deform = arena.take<unsigned char>(plan.deform_bytes);
  return slot;
}

Plan make_plan(const Render& op) {
  Plan plan;
  plan.frames = op.coefficients.shape[0];
  plan.height = op.face.photo_rgb.shape[0];
  plan.width = op.face.photo_rgb.shape[1];
  const std::int64_t vertices = op.neutral.shape[0];
  plan.together = pieces(plan.frames, op.threads) < kTogether ? pieces(plan.frames, op.threads) : kTogether;
  if (plan.together < 1) plan.together = 1;
  plan.groups = pieces(plan.frames, plan.together);
  plan.face = op.face;
  plan.face.positions = plan.face.screen = {nullptr, {1, vertices, 3}};
  plan.face.triangle_id = {nullptr, {1, plan.height, plan.width}};
  plan.face.controls = {nullptr, {1, op.controls.shape[1]}};
  plan.deform.neutral = op.neutral;
  plan.deform.basis = op.basis;
  plan.deform.moves = op.moves;
  plan.deform.coefficients = {nullptr, {plan.together, op.coefficients.shape[1]}};
  plan.deform.camera = op.camera;
  plan.deform.positions = plan.deform.screen = {nullptr, {plan.together, vertices, 3}};
  plan.deform.near_mm = op.near_mm;
  plan.deform_bytes = workspace_bytes(plan.deform);
  plan.slots = plan.groups < op.threads ? plan.groups : op.threads;
  if (plan.slots > kMostThreads) plan.slots = kMostThreads;
  if (plan.slots < 1) plan.slots = 1;
  plan.workers = plan.frames > 1 ? 1 : op.threads;
  const std::int64_t stride = Planes::stride_for(plan.width);
  std::int64_t rows = kBandPixels / stride > kLeastBandRows ? kBandPixels / stride : kLeastBandRows;
  const std::int64_t shared_rows = pieces(plan.height, kBandsPerThread * plan.workers);
  if (plan.workers > 1 && shared_rows < rows) rows = shared_rows;
  plan.bands = raster::Bands::of(plan.height, rows);
  Arena measure(nullptr);
  take_slot(plan, measure);
  plan.slot_bytes = measure.used();
  return plan;
}

// ---- before the pixels

void deform_frames(const Render& op, const Plan& plan, const Slot& slot, std::int64_t first, std::int64_t count,
                   int threads) {
  Deform deform = plan.deform;
  deform.coefficients.data = op.coefficients.data + first * op.coefficients.shape[1];
  deform.coefficients.shape[0] = deform.positions.shape[0] = deform.screen.shape[0] = count;
  deform.positions.data = slot.positions;
  deform.screen.data = slot.screen;
  deform.threads = threads;
  deform.workspace = {slot.deform, plan.deform_bytes};
  static_cast<void>(run(deform));
}

FF_INLINE float eased(float t) {
  t = clamped(t, 0.0f, 1.0f);
  return t * t * (3.0f - 2.0f * t);
}

// None at rest, all once lids or lips have parted by a hair (Part in ops/frame.h).
void find_shares(const Render& op, const float* screen, float (&shares)[3]) {
  const View<const std::int32_t>* eyes[2] = {&op.left, &op.right};
  const float* rest = op.face.rest_px.data;
  for (int eye = 0; eye < 2; ++eye) {
    float parted = 0.0f;
    for (std::int64_t i = 0; i < eyes[eye]->shape[0]; ++i) {
      const std::int64_t v = eyes[eye]->data[i];
      for (int c = 0; c < 2; ++c) parted = larger(parted, absolute(screen[3 * v + c] - rest[2 * v + c]));
    }
    shares[eye] = eased((parted - op.rounding_px) / op.hair_px);
  }
  const std::int64_t count = op.face.lip_rim.shape[1];
  float parted = -1e9f;
  for (std::int64_t i = 0; i < count; ++i) {
    const float* upper = screen + 3 * static_cast<std::int64_t>(op.face.lip_rim.data[i]);
    const float* lower = screen + 3 * static_cast<std::int64_t>(op.face.lip_rim.data[count + i]);
    const float x = upper[0] - lower[0], y = upper[1] - lower[1];
    parted = larger(parted, __builtin_sqrtf(x * x + y * y) - op.lip_gap.data[i]);
  }
  shares[2] = eased((parted - op.rounding_px) / op.hair_px);
}

// The box around all that may be drawn anew, and what softening needs around it.
void find_soft(const Render& op, const float* screen, Frame& frame) {
  float low[2] = {1e9f, 1e9f}, high[2] = {-1e9f, -1e9f};
  const auto include = [&](const View<const std::int32_t>& vertices, bool drawn) {
    if (!drawn) return;
    for (std::int64_t i = 0; i < vertices.shape[0]; ++i)
      for (int c = 0; c < 2; ++c) {
        const float at = screen[3 * static_cast<std::int64_t>(vertices.data[i]) + c];
        low[c] = at < low[c] ? at : low[c];
        high[c] = at > high[c] ? at : high[c];
      }
  };
  include(op.left, frame.shares[0] > 0.0f);
  include(op.right, frame.shares[1] > 0.0f);
  include(op.face.painted, frame.shares[2] > 0.0f);
  using shading::between;
  const std::int64_t height = frame.shade.height, width = frame.shade.width;
  const auto first = [](float at, std::int64_t size) {
    return between(static_cast<std::int64_t>(clamped(at, 0.0f, 4e4f)), 0, size);
  };
  const auto end = [](float at, std::int64_t start, std::int64_t size) {
    return between(static_cast<std::int64_t>(clamped(at, -1.0f, 4e4f)) + 1, start, size);
  };
  frame.drawn_top = first(low[1], height);
  frame.drawn_end_row = end(high[1], frame.drawn_top, height);
  frame.drawn_left = static_cast<std::int32_t>(first(low[0], width));
  frame.drawn_end_column = static_cast<std::int32_t>(end(high[0], frame.drawn_left, width));
  frame.soft_top = between(frame.drawn_top - kSoftMargin, 0, height);
  frame.soft_end_row = between(frame.drawn_end_row + kSoftMargin, 0, height);
  if (!(low[1] <= high[1])) frame.soft_end_row = frame.soft_top;  // nothing is drawn anew
  frame.soft_left = between(frame.drawn_left - kSoftMargin, 0, width);
  frame.soft_end_column = between(frame.drawn_end_column + kSoftMargin, 0, width);
}

void prepare_vertices(const Frame& frame, int threads) {
  in_pieces(frame.shade.vertices, kVerticesPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    shading::move_vertices(frame.shade, begin, end);
    raster::snap_vertices(frame.mesh, begin, end);
  });
}

// Light by vertex, the mouth's paint, the folds; beside them lists of triangles.
void light_frame(const Frame& frame, int threads) {
  const shading::Frame& f = frame.shade;
  const Shade& op = *f.op;
  if (f.paint) shading::gather_rim(f);
  const std::int64_t faces = f.paint ? op.faces.shape[0] : op.lit_faces;
  in_pieces(
      faces, frame.mesh.triangle_count, raster::kTrianglesPerTask, threads,
      [&](std::int64_t begin, std::int64_t end) { shading::face_normals(f, begin, end); },
      [&](std::int64_t begin, std::int64_t end) { raster::sort_triangles(frame.mesh, begin, end, frame.sorted); });
  const bool folds = f.fold_box[0] < f.fold_box[2];
  const std::int64_t fold_rows = folds ? f.fold_box[2] - f.fold_box[0] + 2 * shading::kFoldMargin : 0;
  in_pieces(
      op.lit.shape[0], f.paint ? op.painted.shape[0] : 0, kVerticesPerTask, threads,
      [&](std::int64_t begin, std::int64_t end) { shading::light_vertices(f, begin, end); },
      [&](std::int64_t begin, std::int64_t end) { shading::paint_vertices(f, begin, end); });
  in_pieces(fold_rows * kFacesPerRow, kFacesPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin / kFacesPerRow; row < end / kFacesPerRow; ++row) shading::mix_folds(f, row);
  });
}

// ---- the pixels

// The planes with row 0 of the image where the band's first row is kept.
Planes shifted(Planes planes, std::int64_t first_row) {
  const std::int64_t back = first_row * planes.stride;
  planes.depth -= back;
  planes.id -= back;
  planes.dx -= back;
  planes.dy -= back;
  planes.gain -= back;
  return planes;
}

void draw_band(const Frame& whole, const Planes& planes, int band) {
  const raster::Bands& bands = whole.sorted.bands;
  const std::int64_t begin = bands.begin(band), end = bands.end(band);
  float* FF_RESTRICT depth = planes.depth;
  for (std::int64_t i = 0; i < (end - begin) * planes.stride; ++i) depth[i] = __builtin_inff();
  Frame frame = whole;
  frame.planes = shifted(planes, begin);
  raster::draw_band(frame.planes, frame.mesh, frame.sorted, band);
  render_rows(frame, begin, end);
}

void draw_frame(const Frame& frame, const Slot& slot, int threads) {
  parallel_for(frame.sorted.bands.count, threads, [&](std::int64_t band) {
    const std::int64_t mine = borrow(slot.busy, threads);
    draw_band(frame, slot.planes[mine], static_cast<int>(band));
    give_back(slot.busy, mine);
  });
  const std::int64_t top = frame.soft_top, rows = frame.soft_end_row - top;
  in_pieces(rows, kSoftRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = top + begin; row < top + end; ++row) soften_row(frame, row);
  });
  in_pieces(rows, kSoftRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = top + begin; row < top + end; ++row) put_softened(frame, row);
  });
}

// ---- frames

// The frame at `index`, which is number `place` of those that were deformed together.
Frame frame_at(const Render& op, const Plan& plan, const Slot& slot, std::int64_t index, std::int64_t place) {
  Frame frame;
  frame.shade = slot.shade;
  frame.shade.positions = slot.positions + place * 3 * op.neutral.shape[0];
  frame.shade.screen = slot.screen + place * 3 * op.neutral.shape[0];
  frame.shade.id = nullptr;
  frame.shade.bary = nullptr;
  const std::int64_t shifts = op.face.shift_px.shape[0];
  frame.shade.shift_weight = op.controls.data + index * op.controls.shape[1];
  frame.shade.fold_weight = frame.shade.shift_weight + shifts + 3;
  frame.mesh = mesh_of(plan);
  frame.mesh.screen = frame.shade.screen;
  frame.mesh.vertices = slot.vertices;
  frame.sorted = slot.sorted;
  const std::int64_t across = op.photo.shape[1], area = op.photo.shape[0] * across;
  const std::int64_t corner = op.top * across + op.left_edge;
  frame.image = op.image.data + (index * area + corner) * 3;
  frame.image_stride = across * 3;
  frame.mask = op.mask.data == nullptr ? nullptr : op.mask.data + index * area + corner;
  frame.mask_stride = across;
  return frame;
}

void copy_photo(const Render& op, std::int64_t index, int threads) {
  const std::int64_t row_bytes = op.photo.shape[1] * 3, area = op.photo.shape[0] * row_bytes;
  in_pieces(op.photo.shape[0], kPhotoRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    const std::size_t bytes = static_cast<std::size_t>((end - begin) * row_bytes);
    std::memcpy(op.image.data + index * area + begin * row_bytes, op.photo.data + begin * row_bytes, bytes);
  });
  if (op.mask.data != nullptr)
    std::memset(op.mask.data + index * area / 3, 0, static_cast<std::size_t>(area / 3));
}

bool stands_still(const Render& op, std::int64_t index) {
  const std::int64_t modes = op.coefficients.shape[1];
  const float* row = op.coefficients.data + index * modes;
  for (std::int64_t k = 0; k < modes; ++k)
    if (row[k] != 0.0f) return false;
  return true;
}

void render_frame(const Render& op, const Plan& plan, const Slot& slot, std::int64_t index, std::int64_t place,
                  int threads) {
  copy_photo(op, index, threads);
  if (stands_still(op, index)) return;
  Frame frame = frame_at(op, plan, slot, index, place);
  find_shares(op, frame.shade.screen, frame.shares);
  frame.shade.share = frame.shares;
  shading::find_drawn(frame.shade);
  shading::find_folds(frame.shade);
  find_soft(op, frame.shade.screen, frame);
  prepare_vertices(frame, threads);
  light_frame(frame, threads);
  draw_frame(frame, slot, threads);
}

void render_group(const Render& op, const Plan& plan, std::int64_t group, std::int64_t slot_number, int threads) {
  Arena arena(op.workspace.data + kBusyBytes + slot_number * plan.slot_bytes);
  const Slot slot = take_slot(plan, arena);
  const std::int64_t first = group * plan.together, left = plan.frames - first;
  const std::int64_t count = left < plan.together ? left : plan.together;
  deform_frames(op, plan, slot, first, count, threads);
  for (std::int64_t place = 0; place < count; ++place)
    render_frame(op, plan, slot, first + place, place, threads);
}

bool fits(const Render& op, const Plan& plan) {
  return shading::shapes_agree(plan.face) && op.top >= 0 && op.left_edge >= 0 &&
         op.top + plan.height <= op.photo.shape[0] && op.left_edge + plan.width <= op.photo.shape[1] &&
         op.neutral.shape[0] == op.face.rest_px.shape[0];
}

}  // namespace

std::int64_t workspace_bytes(const Render& op) {
  const Plan plan = make_plan(op);
  return kBusyBytes + plan.slots * plan.slot_bytes;
}

Status run(const Render& op) {
  const Plan plan = make_plan(op);
  if (!fits(op, plan)) return Status::kPreparedOtherwise;
  if (plan.groups == 1) {
    render_group(op, plan, 0, 0, plan.frames > 1 ? 1 : op.threads);
    return Status::kOk;
  }
  std::int32_t* busy = reinterpret_cast<std::int32_t*>(op.workspace.data);
  for (std::int64_t slot = 0; slot < plan.slots; ++slot) busy[slot] = 0;
  parallel_for(plan.groups, static_cast<int>(plan.slots), [&](std::int64_t group) {
    const std::int64_t slot = borrow(busy, plan.slots);
    render_group(op, plan, group, slot, 1);
    give_back(busy, slot);
  });
  return Status::kOk;
}

}  // namespace FF_ISA
}  // namespace fastface
