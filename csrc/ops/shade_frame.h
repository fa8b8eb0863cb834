// A frame of shade: its memory, and what is found out about it first.
#pragma once

#include <cstdint>

#include "core/workspace.h"
#include "ops/shade_pixels.h"

namespace fastface {
inline namespace FF_ISA {
namespace shading {

inline Frame take_frame(const Shade& op, Arena& arena) {
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

// Which layers are drawn anew.
inline void find_drawn(Frame& frame) {
  frame.paint = frame.op->painted.shape[0] > 0 && frame.share[kPainted - 1] > 0.0f;
  frame.draws = false;
  for (int layer = 0; layer < 4; ++layer) {
    frame.share_of[layer] = layer == kSkin ? 0.0f : frame.share[layer - 1];
    frame.draws |= frame.share_of[layer] > 0.0f;
  }
}

// The box around all folds that show in a frame, and the blocks of the image that they touch.
inline void find_folds(Frame& frame) {
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

inline bool shapes_agree(const Shade& op) {
  const std::int64_t rows = op.triangle_id.shape[1] + 2 * kShadeBorder;
  const std::int64_t columns = op.triangle_id.shape[2] + 2 * kShadeBorder;
  const auto blocks = [](std::int64_t size) { return (size + kShadeFoldBlock - 1) / kShadeFoldBlock; };
  if (op.fold_block.shape[1] != blocks(rows) || op.fold_block.shape[2] != blocks(columns)) return false;
  return op.photo.shape[0] == rows - 1 && (op.folds.shape[0] == 0 || op.folds.shape[1] == rows) && op.photo.shape[1] == columns && op.lit.shape[0] % kShadeBlock == 0 &&
         op.painted.shape[0] % kShadeBlock == 0 && op.lit_fan_start.shape[0] == op.lit.shape[0] + 1 &&
         op.painted_fan_start.shape[0] == op.painted.shape[0] + 1 && op.lip_rim.shape[1] >= 2 && op.lit_faces >= 0 &&
         op.lit_faces <= op.faces.shape[0] && op.controls.shape[1] == op.shift_px.shape[0] + 3 + op.folds.shape[0];
}

}  // namespace shading
}  // namespace FF_ISA
}  // namespace fastface
