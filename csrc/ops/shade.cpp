// Schedule: vertices, then rows. Motion of vertices and normals of faces by whole vectors; light by vertex, gathered
// over its fan, so that no sum depends on who computes it; the mouth only while it is drawn and somewhere visible.
// Triangles that cannot change are marked, and their pixels are the photo's by a copy. Frames of a batch go to different
// threads; what is left over is shared out by vertices and rows.
#include "ops/shade.h"

#include <initializer_list>

#include "core/parallel.h"
#include "core/workspace.h"
#include "ops/shade_frame.h"

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
  find_drawn(frame);
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
  const auto layer_at = [&](std::int64_t row, std::int64_t column) {
    return state_at(frame, frame.id[row * frame.width + column]) >> kLayerShift;
  };
  in_pieces(bottom - top, kSoftRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = top + begin; row < top + end; ++row) soften(frame, row, layer_at);
  });
  in_pieces(bottom - top, kSoftRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = top + begin; row < top + end; ++row) put_softened(frame, row);
  });
}

void shade_frame(const Frame& frame, int threads) {
  shade_vertices(frame, threads);
  in_pieces(frame.height, kRowsPerTask, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) shade_row(frame, row);
  });
  if (frame.draws) soften_edges(frame, threads);
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
