// deform: a linear face model and a perspective camera.
//
//   positions[b, v] = neutral[v] + sum_k coefficients[b, k] * basis[k, v]            camera space, mm
//   screen[b, v]    = (f_px X / Z + c_x, f_px Y / Z + c_y, Z)
//
// neutral and basis are already rotated (and neutral translated) to camera space. A vertex with Z <= near_mm, or with Z
// not a number, gets the screen position (0, 0, 0), which rasterize rejects. Coefficients that are zero cost nothing.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/view.h"

namespace fastface {

constexpr std::int64_t kDeformBlock = 64;  // vertices of a block of the packed basis

struct Deform {
  static constexpr const char* kName = "deform";
  static constexpr int kVersion = 1;

  View<const float> neutral;
  RealView basis;                  // by block, then mode, then coordinate: one block's modes are one stream
  View<const std::uint8_t> moves;  // 0: this mode moves no vertex of this block
  View<const float> coefficients;
  View<const float> camera;  // f_px, c_x, c_y; one row for all frames or one per frame
  View<float> positions;
  View<float> screen;
  float near_mm = 1.0f;
  int threads = 1;
  WorkspaceView workspace;

  template <class Visitor>
  FF_HD constexpr void describe(Visitor& visit) {
    visit.input("neutral", neutral, "V 3");
    visit.input("basis", basis, "N K 3 64");
    visit.input("moves", moves, "N K");
    visit.input("coefficients", coefficients, "B K");
    visit.input("camera", camera, "C 3");
    visit.output("positions", positions, "B V 3");
    visit.output("screen", screen, "B V 3");
    visit.attribute("near_mm", near_mm);
    visit.attribute("threads", threads);
    visit.workspace(workspace);
  }
};

inline namespace FF_ISA {
std::int64_t workspace_bytes(const Deform& op);
Status run(const Deform& op);
}  // namespace FF_ISA

}  // namespace fastface
