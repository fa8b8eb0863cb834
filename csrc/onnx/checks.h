// What a description cannot say of an op's arrays: how their sizes belong together, and that indices lead nowhere else
// than where they may. The other adapter has these from the code that made the arrays; a graph's may come from anyone.
#pragma once

#include <cmath>
#include <cstdint>

#include "registry.h"

namespace fastface::onnx {

constexpr std::int64_t kMostPixelsASide = 32767;

template <class T>
std::int64_t count_of(const View<T>& view, int rank) {
  std::int64_t count = 1;
  for (int axis = 0; axis < rank; ++axis) count *= view.shape[axis];
  return count;
}

// Written without an early return, so that the loop is vectorised.
template <class T>
bool all_below(const View<const T>& indices, int rank, std::int64_t end) {
  const std::int64_t count = count_of(indices, rank);
  const std::uint32_t limit = end < 0 ? 0 : static_cast<std::uint32_t>(end < INT32_MAX ? end : INT32_MAX);
  std::uint32_t wrong = 0;
  for (std::int64_t i = 0; i < count; ++i) wrong |= static_cast<std::uint32_t>(indices.data[i]) >= limit;
  return wrong == 0;
}

inline bool all_finite(const View<const float>& values, int rank) {
  const std::int64_t count = count_of(values, rank);
  std::uint32_t wrong = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, values.data + i, sizeof(bits));
    wrong |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return wrong == 0;
}

// Fans lie one behind the other, the larger ones later.
inline bool fans_fit(const View<const std::int32_t>& start, const View<const std::int32_t>& fans) {
  std::int32_t at = 0, last_size = 0;
  if (start.shape[0] == 0 || start.data[0] != 0) return false;
  for (std::int64_t i = 1; i < start.shape[0]; ++i) {
    const std::int64_t size = static_cast<std::int64_t>(start.data[i]) - at;
    if (size < last_size || size > INT32_MAX) return false;
    last_size = static_cast<std::int32_t>(size);
    at = start.data[i];
  }
  return at == fans.shape[0];
}

inline bool images_fit(std::int64_t height, std::int64_t width) {
  return height <= kMostPixelsASide && width <= kMostPixelsASide;
}

// Null, or what the op wants and does not get. `sizes_misfit` looks at shapes and attributes alone, `values_misfit` at
// what lies in host memory too.
inline const char* sizes_misfit(const Deform& op) {
  const std::int64_t cameras = op.camera.shape[0];
  if (cameras != 1 && cameras != op.coefficients.shape[0]) return "camera must have one row, or one for every frame";
  if (op.basis.shape[0] != (op.neutral.shape[0] + kDeformBlock - 1) / kDeformBlock)
    return "basis must have a block for every 64 vertices";
  if (!std::isfinite(op.near_mm)) return "near_mm must be finite";
  return nullptr;
}
inline const char* values_misfit(const Deform&) { return nullptr; }

inline const char* sizes_misfit(const Rasterize& op) {
  if (!images_fit(op.triangle_id.shape[1], op.triangle_id.shape[2])) return "an image has at most 32767 pixels a side";
  return nullptr;
}
inline const char* values_misfit(const Rasterize&) { return nullptr; }

inline const char* sizes_misfit(const Shade& op) {
  if (!images_fit(op.triangle_id.shape[1], op.triangle_id.shape[2])) return "an image has at most 32767 pixels a side";
  return nullptr;
}
inline const char* values_misfit(const Shade& op) {
  const std::int64_t vertices = op.positions.shape[1], faces = op.faces.shape[0];
  if (!all_below(op.triangles, 2, vertices)) return "triangles must hold indices of vertices";
  if (!all_below(op.layer, 1, 4)) return "layer must be 0 to 3";
  if (!all_below(op.faces, 2, vertices)) return "faces must hold indices of vertices";
  if (!all_below(op.lit, 1, vertices)) return "lit must hold indices of vertices";
  if (!all_below(op.painted, 1, vertices)) return "painted must hold indices of vertices";
  if (!all_below(op.lip_rim, 2, vertices)) return "lip_rim must hold indices of vertices";
  if (!all_below(op.lit_fans, 1, op.lit_faces)) return "lit_fans must hold indices of the first lit_faces faces";
  if (!all_below(op.painted_fans, 1, faces)) return "painted_fans must hold indices of faces";
  if (!fans_fit(op.lit_fan_start, op.lit_fans)) return "lit_fan_start must rise to the number of lit_fans, by more each time";
  if (!fans_fit(op.painted_fan_start, op.painted_fans))
    return "painted_fan_start must rise to the number of painted_fans, by more each time";
  for (std::int64_t d = 0; d < op.folds.shape[0]; ++d) {
    const std::int32_t* box = op.fold_box.data + 4 * d;
    const bool rows = box[0] >= 0 && box[0] <= box[2] && box[2] <= op.folds.shape[1];
    const bool columns = box[1] >= 0 && box[1] <= box[3] && box[3] <= op.folds.shape[2];
    if (!rows || !columns) return "fold_box must lie within the folds";
  }
  if (!all_finite(op.rest_px, 2) || !all_finite(op.shift_px, 3)) return "rest_px and shift_px must be finite";
  return nullptr;
}

inline const char* sizes_misfit(const Blend& op) {
  const std::int64_t photos = op.photo.shape[0];
  if (photos != 1 && photos != op.source.shape[0]) return "photo must be one image, or one for every frame";
  if (!images_fit(op.photo.shape[1], op.photo.shape[2])) return "an image has at most 32767 pixels a side";
  if (!(op.tolerance > 0.0f) || !std::isfinite(op.tolerance)) return "tolerance must be positive";
  return nullptr;
}
inline const char* values_misfit(const Blend&) { return nullptr; }

}  // namespace fastface::onnx
