// rasterize: which triangle each pixel centre lies in, and where in it.
//
// Screen coordinates are rounded to 1/256 px. A pixel belongs to a triangle that covers its centre; centres on an edge
// belong to the top or left side (CONVENTIONS.md), so triangles that share an edge share no pixel and leave none out.
// Edge functions are integers, exact up to coordinates of 2^40 px; a triangle with a vertex beyond that, not finite, or
// with Z <= 0 is dropped, as are triangles without area. The nearest Z (linear in screen space) wins, then the lowest
// triangle index. Every result is the same bit for bit on every instruction set and number of threads.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/view.h"

namespace fastface {

struct Rasterize {
  static constexpr const char* kName = "rasterize";
  static constexpr int kVersion = 1;

  View<const float> screen;  // x_px, y_px, Z
  View<const std::int32_t> triangles;
  View<std::int32_t> triangle_id;  // -1 where no triangle is
  View<float> bary;                // weights of the second and third vertex; 0 where no triangle is
  View<float> depth;               // optional; infinite where no triangle is
  int cull_backfaces = 0;          // drop triangles that are clockwise to the viewer
  int threads = 1;
  WorkspaceView workspace;

  template <class Visitor>
  FF_HD constexpr void describe(Visitor& visit) {
    visit.input("screen", screen, "B V 3");
    visit.input("triangles", triangles, "F 3");
    visit.output("triangle_id", triangle_id, "B H W");
    visit.output("bary", bary, "B H W 2");
    visit.optional_output("depth", depth, "B H W");
    visit.attribute("cull_backfaces", cull_backfaces);
    visit.attribute("threads", threads);
    visit.workspace(workspace);
  }
};

inline namespace FF_ISA {
std::int64_t workspace_bytes(const Rasterize& op);
Status run(const Rasterize& op);
}  // namespace FF_ISA

}  // namespace fastface
