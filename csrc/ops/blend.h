// blend: the exact masked Poisson problem (Perez, Gangnet, Blake, Poisson Image Editing, SIGGRAPH 2003, equation 7).
//
// Unknown are the pixels p whose mask is not 0. With N_p the 4-neighbours of p inside the image,
//
//   |N_p| f_p - sum_{q in N_p, masked} f_q = sum_{q in N_p, not masked} photo_q + sum_{q in N_p} (source_p - source_q).
//
// So f = source + h with h harmonic in the mask and h = photo - source around it. Pixels outside the mask are the
// photo's, bit for bit; f is rounded to nearest and clamped to 0 ... 255. A mask that covers the whole image has
// nothing to hold on to: f = source. By the maximum principle h is nowhere larger than around the mask, so where that
// is below the tolerance h = 0.
//
// A source that is not finite around the mask counts as equal to the photo; inside, NaN becomes 0.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/view.h"

namespace fastface {

struct Blend {
  static constexpr const char* kName = "blend";
  static constexpr int kVersion = 1;

  View<const std::uint8_t> photo;  // one for all frames or one per frame
  View<const float> source;        // grey levels
  View<const std::uint8_t> mask;   // not 0: unknown
  View<std::uint8_t> image;
  View<float> exact;        // optional: f before rounding; the photo outside the mask
  float tolerance = 0.25f;  // largest error aimed at, grey levels
  int threads = 1;
  WorkspaceView workspace;

  template <class Visitor>
  FF_HD constexpr void describe(Visitor& visit) {
    visit.input("photo", photo, "P H W 3");
    visit.input("source", source, "B H W 3");
    visit.input("mask", mask, "B H W");
    visit.output("image", image, "B H W 3");
    visit.optional_output("exact", exact, "B H W 3");
    visit.attribute("tolerance", tolerance);
    visit.attribute("threads", threads);
    visit.workspace(workspace);
  }
};

inline namespace FF_ISA {
std::int64_t workspace_bytes(const Blend& op);
Status run(const Blend& op);
}  // namespace FF_ISA

}  // namespace fastface
