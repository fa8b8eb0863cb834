// shade: the colour of every pixel of a deformed face, and which of them differ from the photo.
//
// A pixel takes its colour from the photo where its point of the skin lay there, by Catmull-Rom interpolation, times
// the change of irradiance on its normal and the folds that skin forms. Behind parted lids the bare eyes show, behind
// parted lips the painted mouth, lit by what gets in between the lips. The mask is not 0 where a pixel's colour comes
// from elsewhere than itself; everywhere else the source is the photo, bit for bit. reference.py defines every term.
//
// What belongs to the face and not to the frame is put in order beforehand (prepare_shading in fastface/shading.py): the
// photo and the bare eyes repeated two pixels beyond their borders, each byte beside the one below it, and the lists of
// what must be computed:
//   lit      vertices of skin with relief, by number of triangles around them, and those fans into `faces`
//   painted  vertices of the mouth, likewise
//   faces    triangles of either; the first `lit_faces` of them are all that `lit` needs.
// Both lists have a multiple of kShadeBlock vertices, the last repeated. Indices in prepared arrays are taken on trust;
// a triangle_id outside 0 ... F - 1 is no triangle. Coordinates and weights that are not finite spoil the pixels they
// touch and nothing else.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/view.h"

namespace fastface {

constexpr std::int64_t kShadeBlock = 16;  // SHADE_BLOCK in fastface/shading.py
constexpr std::int64_t kShadeBorder = 2;  // SHADE_BORDER there
constexpr std::int64_t kShadeFoldBlock = 8;  // SHADE_FOLD_BLOCK there

struct Shade {
  static constexpr const char* kName = "shade";
  static constexpr int kVersion = 1;

  View<const float> positions;
  View<const float> screen;
  View<const std::int32_t> triangle_id;
  View<const float> bary;
  View<const float> controls;  // weights of the shifts; shares of the eyes and the mouth; weights of the folds
  View<const std::int32_t> triangles;
  View<const std::uint8_t> layer;
  View<const float> rest_px;
  View<const float> shift_px;
  View<const std::int32_t> faces;  // triangles whose normals are needed
  View<const std::int32_t> lit;
  View<const std::int32_t> lit_fan_start;
  View<const std::int32_t> lit_fans;
  View<const float> lit_relief;    // over gamma
  View<const float> lit_rest_log;  // log irradiance of the photo
  View<const std::int32_t> painted;
  View<const std::int32_t> painted_fan_start;
  View<const std::int32_t> painted_fans;
  View<const float> paint_linear;
  View<const std::int32_t> lip_rim;
  View<const float> light;
  View<const std::uint8_t> photo_rgb;
  View<const std::uint8_t> photo;  // with its borders repeated, rows in pairs: rows 0 and 1, 1 and 2, 2 and 3, ...
  View<const std::uint8_t> eyes;   // likewise
  View<const float> folds;         // with its borders repeated
  View<const std::int32_t> fold_box;  // first row, first column, end row, end column of what is not 0 in each fold
  View<const std::uint8_t> fold_block;  // by blocks of the bordered image: not 0 where 4 × 4 pixels from one in it are
  View<float> source;
  View<std::uint8_t> mask;
  int lit_faces = 0;
  int threads = 1;
  WorkspaceView workspace;

  template <class Visitor>
  FF_HD constexpr void describe(Visitor& visit) {
    visit.input("positions", positions, "B V 3");
    visit.input("screen", screen, "B V 3");
    visit.input("triangle_id", triangle_id, "B H W");
    visit.input("bary", bary, "B H W 2");
    visit.input("controls", controls, "B C");
    describe_face(visit);
    visit.output("source", source, "B H W 3");
    visit.output("mask", mask, "B H W");
    visit.attribute("lit_faces", lit_faces);
    visit.attribute("threads", threads);
    visit.workspace(workspace);
  }

  // What is known of a face beforehand.
  template <class Visitor>
  constexpr void describe_face(Visitor& visit) {
    visit.input("triangles", triangles, "F 3");
    visit.input("layer", layer, "F");
    visit.input("rest_px", rest_px, "V 2");
    visit.input("shift_px", shift_px, "S V 2");
    visit.input("faces", faces, "T 3");
    visit.input("lit", lit, "L");
    visit.input("lit_fan_start", lit_fan_start, "l");
    visit.input("lit_fans", lit_fans, "m");
    visit.input("lit_relief", lit_relief, "L");
    visit.input("lit_rest_log", lit_rest_log, "L");
    visit.input("painted", painted, "P");
    visit.input("painted_fan_start", painted_fan_start, "p");
    visit.input("painted_fans", painted_fans, "q");
    visit.input("paint_linear", paint_linear, "P 3");
    visit.input("lip_rim", lip_rim, "2 R");
    visit.input("light", light, "9");
    visit.input("photo_rgb", photo_rgb, "H W 3");
    visit.input("photo", photo, "I J 8");
    visit.input("eyes", eyes, "I J 8");
    visit.input("folds", folds, "D G J");
    visit.input("fold_box", fold_box, "D 4");
    visit.input("fold_block", fold_block, "D M N");
  }
};

inline namespace FF_ISA {
std::int64_t workspace_bytes(const Shade& op);
Status run(const Shade& op);
}  // namespace FF_ISA

}  // namespace fastface
