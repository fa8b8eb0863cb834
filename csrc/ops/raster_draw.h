// Drawing of a mesh, chunk by chunk or band by band.
#pragma once

#include <cstdint>

#include "core/parallel.h"
#include "core/workspace.h"
#include "ops/raster_boxes.h"
#include "ops/raster_spans.h"

namespace fastface {
inline namespace FF_ISA {
namespace raster {

constexpr std::int64_t kTrianglesPerTask = 4 * kChunk;

// The lists of a frame: one set for each task that fills them and each band that is drawn from them.
struct Sorted {
  Bands bands;
  std::int64_t tasks;
  Lists* lists;  // (tasks, bands)
};

inline Sorted take_sorted(const Mesh& mesh, const Bands& bands, Arena& arena) {
  Sorted sorted;
  sorted.bands = bands;
  sorted.tasks = pieces(mesh.triangle_count, kTrianglesPerTask);
  const std::int64_t count = sorted.tasks * bands.count;
  sorted.lists = arena.take<Lists>(count);
  for (std::int64_t i = 0; i < count; ++i)
    for (int way = 0; way < kWays; ++way) {
      std::int32_t* list = arena.take<std::int32_t>(kTrianglesPerTask + kLanes);
      if (list != nullptr) sorted.lists[i].triangle[way] = list;
    }
  return sorted;
}

template <class Target>
FF_INLINE void draw_lists(const Target& target, const Mesh& mesh, const Lists& lists, std::int64_t begin,
                          std::int64_t end) {
  draw_boxes<kTinyBox>(target, mesh, lists.triangle[kTiny], lists.count[kTiny], begin, end);
  draw_boxes<kLittleBox>(target, mesh, lists.triangle[kLittle], lists.count[kLittle], begin, end);
  draw_spans(target, mesh, lists.triangle[kSpans], lists.count[kSpans], begin, end);
}

FF_INLINE void empty_lists(Lists& lists) {
  for (std::int32_t& count : lists.count) count = 0;
}

// Lists and draws a whole image chunk by chunk, while the lists are in the nearest cache.
template <class Target>
void draw_at_once(const Target& target, const Mesh& mesh, Lists& lists) {
  const Bands whole = Bands::of(mesh.height, mesh.height);
  for (std::int64_t first = 0; first < mesh.triangle_count; first += kChunk) {
    const std::int64_t left = mesh.triangle_count - first;
    empty_lists(lists);
    list_visible(mesh, first, left < kChunk ? left : kChunk, whole, &lists);
    draw_lists(target, mesh, lists, 0, mesh.height);
  }
}

// Lists the triangles [begin, end), which are those of one task.
inline void sort_triangles(const Mesh& mesh, std::int64_t begin, std::int64_t end, const Sorted& sorted) {
  Lists* lists = sorted.lists + begin / kTrianglesPerTask * sorted.bands.count;
  for (int b = 0; b < sorted.bands.count; ++b) empty_lists(lists[b]);
  for (std::int64_t first = begin; first < end; first += kChunk)
    list_visible(mesh, first, end - first < kChunk ? end - first : kChunk, sorted.bands, lists);
}

template <class Target>
void draw_band(const Target& target, const Mesh& mesh, const Sorted& sorted, int band) {
  for (std::int64_t task = 0; task < sorted.tasks; ++task)
    draw_lists(target, mesh, sorted.lists[task * sorted.bands.count + band], sorted.bands.begin(band),
               sorted.bands.end(band));
}

}  // namespace raster
}  // namespace FF_ISA
}  // namespace fastface
