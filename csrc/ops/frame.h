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
//   deltas[b, k] = coefficients[b, k] - t own[k], or 0 where that is below `still`
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
  float own_gone_at = 1.0f;
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

// turn: the face as a solid body, and what lies near its rim and beyond led along on the screen, less the farther out;
// fastface/turning.py defines it. A row of `turns` is the rotation and the translation (mm) of camera space, and 1, or 0
// for a frame that is left as it is; frames that turn move.
struct Turn {
  static constexpr const char* kName = "turn";
  static constexpr int kVersion = 1;

  View<const float> turns;
  View<const float> camera;         // f_px, c_x, c_y
  View<const std::int32_t> row_of;  // of each vertex among those that are led, or -1
  View<const std::int32_t> rows;    // those vertices
  View<const float> rows_rest;      // where they lie in the photo, px
  View<const float> share;          // how far they are led, the rest being their own motion
  View<const std::int32_t> border;  // vertices of the border that leads
  View<const float> border_rest;
  View<const float> weights;        // of the border's motion in each row's
  View<const float> body;           // points of the head that lead farther out, mm
  View<const float> body_share;
  View<float> positions;
  View<float> screen;
  View<std::uint8_t> moves;
  WorkspaceView workspace;

  template <class Visitor>
  void describe(Visitor& visit) {
    visit.input("turns", turns, "B 13");
    visit.input("camera", camera, "1 3");
    visit.input("row_of", row_of, "V");
    visit.input("rows", rows, "R");
    visit.input("rows_rest", rows_rest, "R 2");
    visit.input("share", share, "R");
    visit.input("border", border, "N");
    visit.input("border_rest", border_rest, "N 2");
    visit.input("weights", weights, "R N");
    visit.input("body", body, "R 3");
    visit.input("body_share", body_share, "R");
    visit.output("positions", positions, "B V 3");
    visit.output("screen", screen, "B V 3");
    visit.output("moves", moves, "B");
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
