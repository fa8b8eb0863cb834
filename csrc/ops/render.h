// render: a whole frame at once, from coefficients to the finished image; for processors.
//
// The same as, one after the other,
//
//   deform, rasterize without back faces, shade, blend
//
// with the shares of the eyes and the mouth found in between (`part` in ops/frame.h), put into a copy of the photo.
// Nothing leaves the nearer caches on the way: a triangle's pixels get their motion as they are drawn, and colours are
// finished as they are sampled. Around shade's mask the source is the photo, bit for bit, so the Poisson problem that
// blend solves has the solution h = 0 (ops/blend.h) and the source is the result.
//
// Frames whose coefficients are all zero are the photo.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/view.h"
#include "ops/shade.h"

namespace fastface {

struct Render {
  static constexpr const char* kName = "render";
  static constexpr int kVersion = 1;

  View<const float> neutral;  // as deform's
  RealView basis;
  View<const std::uint8_t> moves;
  View<const float> coefficients;
  View<const float> camera;
  View<const float> controls;  // as shade's; the three shares are found here, whatever stands in their place
  Shade face;                  // what shade has of a face, prepared
  View<const std::int32_t> left;   // vertices of the left eye: lids and ball
  View<const std::int32_t> right;  // of the right one
  View<const float> lip_gap;       // px between the rims of the lips in the photo
  View<const std::uint8_t> photo;  // of which the face's own is a window
  View<std::uint8_t> image;
  View<std::uint8_t> mask;  // optional: 1 where a frame may differ from the photo
  int top = 0;              // of the window
  int left_edge = 0;
  float rounding_px = 0.01f;
  float hair_px = 1.0f;
  float near_mm = 1.0f;
  int threads = 1;
  WorkspaceView workspace;

  template <class Visitor>
  constexpr void describe(Visitor& visit) {
    visit.input("neutral", neutral, "V 3");
    visit.input("basis", basis, "n K 3 64");
    visit.input("moves", moves, "n K");
    visit.input("coefficients", coefficients, "B K");
    visit.input("camera", camera, "1 3");
    visit.input("controls", controls, "B C");
    face.describe_face(visit);
    visit.input("left", left, "x");
    visit.input("right", right, "y");
    visit.input("lip_gap", lip_gap, "R");
    visit.input("photo", photo, "X Y 3");
    visit.output("image", image, "B X Y 3");
    visit.optional_output("mask", mask, "B X Y");
    visit.attribute("lit_faces", face.lit_faces);
    visit.attribute("top", top);
    visit.attribute("left_edge", left_edge);
    visit.attribute("rounding_px", rounding_px);
    visit.attribute("hair_px", hair_px);
    visit.attribute("near_mm", near_mm);
    visit.attribute("threads", threads);
    visit.workspace(workspace);
  }
};

inline namespace FF_ISA {
std::int64_t workspace_bytes(const Render& op);
Status run(const Render& op);
}  // namespace FF_ISA

}  // namespace fastface
