// The steps of a frame between the ops, for devices: fastface/rendering.py does the same in NumPy and defines them.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/view.h"

namespace fastface {

// drive: what was asked to what is added to the face as the photo shows it.
//
//   coefficients are clipped to +-limit, and not-a-number counts as 0: nothing that waits could refuse them
//   t            = clip(max_k |coefficients[b, k]| / own_gone_at, 0, 1)
//   deltas[b, k] = coefficients[b, k] - t^2 (3 - 2 t) own[k], or 0 where that is below `still`
//   controls[b]  = clip(deltas[b] . weights, 0, most)
//   moves[b]     = whether any delta is not 0
//
// The columns of the controls that `part` fills have a `most` below 0 and are left alone.
struct Drive {
  static constexpr const char* kName = "drive";
  static constexpr int kVersion = 1;

  View<const float> coefficients;
  View<const float> own;      // the photo's own expression
  View<const float> weights;  // of each coefficient in each control
  View<const float> most;
  View<float> deltas;
  View<float> controls;
  View<std::uint8_t> moves;
  float own_gone_at = 0.3f;
  float still = 1e-4f;
  float limit = 2.0f;
  WorkspaceView workspace;

  template <class Visitor>
  void describe(Visitor& visit) {
    visit.input("coefficients", coefficients, "B K");
    visit.input("own", own, "K");
    visit.input("weights", weights, "K C");
    visit.input("most", most, "C");
    visit.output("deltas", deltas, "B K");
    visit.output("controls", controls, "B C");
    visit.output("moves", moves, "B");
    visit.attribute("own_gone_at", own_gone_at);
    visit.attribute("still", still);
    visit.attribute("limit", limit);
    visit.workspace(workspace);
  }
};

// part: how much of each bare eye and of the painted mouth is drawn: none at rest, all once lids or lips have parted by
// a hair. Writes columns first ... first + 2 of the controls.
struct Part {
  static constexpr const char* kName = "part";
  static constexpr int kVersion = 1;

  View<const float> screen;
  View<const std::int32_t> left;   // vertices of the left eye: lids and ball
  View<const float> left_rest;     // where they lie in the photo, px
  View<const std::int32_t> right;  // of the right one
  View<const float> right_rest;
  View<const std::int32_t> lip_rim;
  View<const float> lip_gap;  // px between the rims in the photo
  View<float> controls;
  int first = 0;
  float rounding_px = 0.01f;
  float hair_px = 1.0f;
  WorkspaceView workspace;

  template <class Visitor>
  void describe(Visitor& visit) {
    visit.input("screen", screen, "B V 3");
    visit.input("left", left, "L");
    visit.input("left_rest", left_rest, "L 2");
    visit.input("right", right, "Q");
    visit.input("right_rest", right_rest, "Q 2");
    visit.input("lip_rim", lip_rim, "2 R");
    visit.input("lip_gap", lip_gap, "R");
    visit.output("controls", controls, "B C");
    visit.attribute("first", first);
    visit.attribute("rounding_px", rounding_px);
    visit.attribute("hair_px", hair_px);
    visit.workspace(workspace);
  }
};

// settle: where nothing was asked not even rounding may show. The masks of frames that do not move become 0.
struct Settle {
  static constexpr const char* kName = "settle";
  static constexpr int kVersion = 1;

  View<const std::uint8_t> moves;
  View<std::uint8_t> mask;
  WorkspaceView workspace;

  template <class Visitor>
  void describe(Visitor& visit) {
    visit.input("moves", moves, "B");
    visit.output("mask", mask, "B H W");
    visit.workspace(workspace);
  }
};

// compose: the photo with a frame's window in its place.
struct Compose {
  static constexpr const char* kName = "compose";
  static constexpr int kVersion = 1;

  View<const std::uint8_t> photo;
  View<const std::uint8_t> window;
  View<std::uint8_t> image;
  int top = 0;
  int left = 0;
  WorkspaceView workspace;

  template <class Visitor>
  void describe(Visitor& visit) {
    visit.input("photo", photo, "I J 3");
    visit.input("window", window, "B H W 3");
    visit.output("image", image, "B I J 3");
    visit.attribute("top", top);
    visit.attribute("left", left);
    visit.workspace(workspace);
  }
};

}  // namespace fastface
