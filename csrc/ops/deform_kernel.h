// The maths of deform for one vertex, or one vector of vertices: F is float on a device, a vector of floats on a host.
#pragma once

#include "core/macros.h"

namespace fastface {
inline namespace FF_ISA {

template <class F, class C>
FF_HD void add_mode(F (&position)[3], C coefficient, const F (&delta)[3]) {
  position[0] += coefficient * delta[0];
  position[1] += coefficient * delta[1];
  position[2] += coefficient * delta[2];
}

struct Pinhole {
  float f_px, c_x, c_y;
};

template <class F>
FF_HD void project(const F (&position)[3], const Pinhole& camera, float near_mm, F (&screen)[3]) {
  const auto front = position[2] > near_mm;
  const F zero{};
  const F depth = front ? position[2] : zero + 1.0f;
  const F scale = camera.f_px / depth;
  screen[0] = front ? position[0] * scale + camera.c_x : zero;
  screen[1] = front ? position[1] * scale + camera.c_y : zero;
  screen[2] = front ? depth : zero;
}

}  // namespace FF_ISA
}  // namespace fastface
