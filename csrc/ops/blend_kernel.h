// The maths of blend per cell: boundary values, the coarse operator and the finished pixel. F is a float or a vector.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace fastface {
inline namespace FF_ISA {

// What a neighbour outside the mask asks of h.
FF_HD float boundary_jump(std::uint8_t photo, float source) {
  const float jump = static_cast<float>(photo) - source;
  constexpr float kSane = 1e5f;
  return __builtin_fabsf(jump) <= kSane ? jump : 0.0f;
}

// 1 / |N_p|, or 0 for a known cell.
template <class F>
FF_HD F inverse_degree(F degree) {
  const F zero{};
  const F most = degree == 4.0f ? zero + 0.25f : degree == 3.0f ? zero + 1.0f / 3.0f : zero;
  return degree == 2.0f ? zero + 0.5f : degree == 1.0f ? zero + 1.0f : most;
}

// One Gauss-Seidel update. inverse_diagonal is 0 outside the mask, where the value stays 0.
template <class F>
FF_HD F relax(F inverse_diagonal, F neighbours, F right_side) {
  return inverse_diagonal * (neighbours + right_side);
}

// The grid as a network of resistors: unknown cells are joined by links, and each is joined to the boundary by a
// conductance. Four cells make a coarse one. Twice as long and twice as wide, a link of two fine ones in parallel has
// half their sum.
template <class F>
FF_HD F coarse_link(F first, F second) {
  return 0.5f * (first + second);
}

// The conductance to the boundary adds up too, but if only some of the four cells touch the boundary, the coarse value
// lies further in than theirs and a resistance comes on top: 1/4 for a straight wall in the limit, much less for a lone
// hole. The constants are between the two, chosen for the rate of convergence on walls, holes, combs and speckle.
template <class F>
FF_HD F coarse_conductance(F sum, F touching, F unknown) {
  const F zero{};
  const F partial = touching == 2.0f ? zero + 0.15f : zero + 0.06f;
  const F extra = touching >= unknown ? zero : partial;
  return sum / (1.0f + extra * sum);
}

template <class F>
FF_HD F clamp_grey(F value) {
  const F zero{};
  const F positive = value > 0.0f ? value : zero;  // NaN becomes 0
  return positive < 255.0f ? positive : zero + 255.0f;
}

// Rounded by truncation after adding a half.
FF_HD std::uint8_t finished_pixel(float value) {
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(clamp_grey(value) + 0.5f));
}

}  // namespace FF_ISA
}  // namespace fastface
