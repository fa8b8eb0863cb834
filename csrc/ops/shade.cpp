// Schedule: vertices, then rows. Motion of vertices and normals of faces by whole vectors; light by vertex, gathered
// over its fan, so that no sum depends on who computes it; the mouth only while it is drawn and somewhere visible.
// Triangles that cannot change are marked, and their pixels are the photo's by a copy. Frames of a batch go to different
// threads; what is left over is shared out by vertices and rows.
#include "ops/shade.h"

#include <initializer_list>

#include "core/parallel.h"
#include "core/workspace.h"
#include "ops/shade_pixels.h"

namespace fastface {
inline namespace FF_ISA {
namespace {

using namespace shading;

constexpr std::int64_t kVerticesPerTask = 1024;
constexpr std::int64_t kFacesPerTask = 2048;
constexpr std::int64_t kFacesPerRow = 64;  // a row of the folds is as much work
constexpr std::int64_t kRowsPerTask = 8;
constexpr std::int64_t kSoftRowsPerTask = 128;  // few pixels of a row: more threads only for large images
static_assert(kFacesPerTask % kFacesPerRow == 0, "whole rows");

struct Plan {
  std::int64_t frames, slots, slot_bytes;
};

Frame take_frame(const Shade& op, Arena& arena) {
  Frame frame;
  frame.op = &op;
  frame.vertices = op.positions.shape[1];
  frame.triangles = op.triangles.shape[0];
  frame.height = op.triangle_id.shape[1];
  frame.width = op.triangle_id.shape[2];
  frame.place = arena.take<float>(4 * frame.vertices);
  frame.motion = arena.take<float>(4 * frame.vertices);
  frame.changes = arena.take<std::int32_t>(frame.vertices);
  frame.colour = arena.take<float>(4 * frame.vertices);
  frame.normal = arena.take<float>(4 * op.faces.shape[0]);
  frame.rim = arena.take<float>(6 * op.lip_rim.shape[1] + kRimRoom);
  frame.state = arena.take<std::uint8_t>(frame.triangles + 1);
  frame.blocks_across = op.fold_block.shape[2];
  frame.fold_block = arena.take<std::uint8_t>(op.fold_block.shape[1] * op.fold_block.shape[2]);
  const std::int64_t more = 2 * (kShadeBorder + kFoldMargin);
  frame.fold = arena.take<float>(op.folds.shape[0] > 0 ? (frame.height + more) * (frame.width + more) : 0);
  frame.drawn_first = arena.take<std::int32_t>(frame.height);
  frame.drawn_end = arena.take<std::int32_t>(frame.height);
  frame.soft = arena.take<float>(frame.height * frame.width * 3);
  return frame;
}

Plan make_plan(const Shade& op) {
  Plan plan;
  plan.frames = op.positions.shape[0];
  plan.slots = plan.frames < op.threads ? plan.frames : op.threads;
  if (plan.slots < 1) plan.slots = 1;
  Arena measure(nullptr);
  take_frame(op, measure);
  plan.slot_bytes = measure.used();
  return plan;
}

// The box around all folds that show in a frame, and the blocks of the image that they touch.
void find_folds(Frame& frame) {
  const Shade& op = *frame.op;
  const std::int64_t blocks = op.fold_block.shape[1] * op.fold_block.shape[2];
  for (std::int64_t& edge : frame.fold_box) edge = 0;
  bool any_yet = false;
  for (std::int64_t d = 0; d < op.folds.shape[0]; ++d) {
    const std::int32_t* own = op.fold_box.data + 4 * d;
    if (finite_or_zero(frame.fold_weight[d]) == 0.0f || own[0] >= own[2]) continue;
    for (int edge = 0; edge < 4; ++edge) {
      const bool wider = edge < 2 ? own[edge] < frame.fold_box[edge] : own[edge] > frame.fold_box[edge];
      if (!any_yet || wider) frame.fold_box[edge] = own[edge];
    }
    const std::uint8_t* block = op.fold_block.data + d * blocks;
    for (std::int64_t i = 0; i < blocks; ++i)
      frame.fold_block[i] = any_yet ? static_cast<std::uint8_t>(frame.fold_block[i] | block[i]) : block[i];
    any_yet = true;
  }
}

Frame frame_at(const Shade& op, const Plan& plan, std::int64_t index, std::int64_t slot) {
  Arena arena(op.workspace.data + slot * plan.slot_bytes);
  Frame frame = take_frame(op, arena);
  const std::int64_t pixels = frame.height * frame.width, shifts = op.shift_px.shape[0];
  frame.positions = op.positions.data + index * frame.vertices * 3;
  frame.screen = op.screen.data + index * frame.vertices * 3;
  frame.id = op.triangle_id.data + index * pixels;
  frame.bary = op.bary.data + index * pixels * 2;
  frame.shift_weight = op.controls.data + index * op.controls.shape[1];
  frame.share = frame.shift_weight + shifts;
  frame.fold_weight = frame.share + 3;
  frame.source = op.source.data + index * pixels * 3;
  frame.mask = op.mask.data + index * pixels;
  frame.paint = op.painted.shape[0] > 0 && frame.share[kPainted - 1] > 0.0f;
  frame.draws = false;
  for (int layer = 0; layer < 4; ++layer) {
    frame.share_of[layer] = layer == kSkin ? 0.0f : frame.share[layer - 1];
    frame.draws |= frame.share_of[layer] > 0.0f;
  }
  find_folds(frame);
  return frame;
}

void shade_vertices(const Frame& frame, int threads) {
  const Shade& op = *frame.op;
  in_pieces(frame.vertices, kVerticesPerTask, threads,
            [&](std::int64_t begin, std::int64_t end) { move_vertices(frame, begin, end); });
  if (frame.paint) gather_rim(frame);
  in_pieces(frame.paint ? op.faces.shape[0] : op.lit_faces, kFacesPerTask, threads,
            [&](std::int64_t begin, std::int64_t end) { face_normals(frame, begin, end); });
  in_pieces(
      op.lit.shape[0], frame.paint ? op.painted.shape[0] : 0, kVerticesPerTask, threads,
      [&](std::int64_t begin, std::int64_t end) { light_vertices(frame, begin, end); },
      [&](std::int64_t begin, std::int64_t end) { paint_vertices(frame, begin, end); });
  frame.state[0] = 0;
  const bool folds = frame.fold_box[0] < frame.fold_box[2];
  const std::int64_t fold_rows = folds ? frame.fold_box[2] - frame.fold_box[0] + 2 * kFoldMargin : 0;
  in_pieces(
      frame.triangles, fold_rows * kFacesPerRow, kFacesPerTask, threads,
      [&](std::int64_t begin, std::int64_t end) { mark_triangles(frame, begin, end); },
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin / kFacesPerRow; row < end / kFacesPerRow; ++row) mix_folds(frame, row);
      });
}

void soften_edges(const Frame& frame, int threads) {
  std::int64_t top = 0, bottom = frame.height;
  while (top < bottom && frame.drawn_end[top] == 0) ++top;
  while (bottom > top && frame.drawn_end[bottom - 1] == 0) --bottom;
  if (top == bottom) return;
  top -= top > 0 ? 1 : 0;
  bottom += bottom < frame.height ? 1 : 0;
  for (const auto step : {soften, put_softened})
    in_pieces(bottom - top, kSoftRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = top + begin; row < top + end; ++row) step(frame, row);
    });
}

void shade_frame(const Frame& frame, int threads) {
  shade_vertices(frame, threads);
  in_pieces(frame.height, kRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) shade_row(frame, row);
  });
  if (frame.draws) soften_edges(frame, threads);
}

bool shapes_agree(const Shade& op) {
  const std::int64_t rows = op.triangle_id.shape[1] + 2 * kShadeBorder;
  const std::int64_t columns = op.triangle_id.shape[2] + 2 * kShadeBorder;
  const auto blocks = [](std::int64_t size) { return (size + kShadeFoldBlock - 1) / kShadeFoldBlock; };
  if (op.fold_block.shape[1] != blocks(rows) || op.fold_block.shape[2] != blocks(columns)) return false;
  return op.photo.shape[0] == rows - 1 && (op.folds.shape[0] == 0 || op.folds.shape[1] == rows) && op.photo.shape[1] == columns && op.lit.shape[0] % kShadeBlock == 0 &&
         op.painted.shape[0] % kShadeBlock == 0 && op.lit_fan_start.shape[0] == op.lit.shape[0] + 1 &&
         op.painted_fan_start.shape[0] == op.painted.shape[0] + 1 && op.lip_rim.shape[1] >= 2 && op.lit_faces >= 0 &&
         op.lit_faces <= op.faces.shape[0] && op.controls.shape[1] == op.shift_px.shape[0] + 3 + op.folds.shape[0];
}

}  // namespace

std::int64_t workspace_bytes(const Shade& op) {
  const Plan plan = make_plan(op);
  return plan.slots * plan.slot_bytes;
}

Status run(const Shade& op) {
  if (!shapes_agree(op)) return Status::kPreparedOtherwise;
  const Plan plan = make_plan(op);
  const std::int64_t shared = plan.slots > 1 ? plan.frames / plan.slots * plan.slots : 0;
  parallel_for(plan.slots > 1 ? plan.slots : 0, op.threads, [&](std::int64_t slot) {
    for (std::int64_t f = slot; f < shared; f += plan.slots) shade_frame(frame_at(op, plan, f, slot), 1);
  });
  for (std::int64_t f = shared; f < plan.frames; ++f) shade_frame(frame_at(op, plan, f, 0), op.threads);
  return Status::kOk;
}

}  // namespace FF_ISA
}  // namespace fastface
