// Solves for h: conjugate gradients preconditioned by one symmetric multigrid V-cycle (red-black Gauss-Seidel forth and
// back, piecewise constant transfer). The cycle makes the number of iterations small and independent of the image's
// size, the conjugate gradients make convergence certain whatever the mask's shape. Tatebe, The multigrid
// preconditioned conjugate gradient method, 1993; Hestenes and Stiefel, Methods of conjugate gradients for solving
// linear systems, 1952.
#pragma once

#include "ops/blend_grid.h"

namespace fastface {
inline namespace FF_ISA {
namespace blend_solve {

using namespace blend_grid;

// One colour channel's arrays; by level: the right side and the value of the cycle.
struct Channel {
  float* side[kMaxLevels][2];
  float* value[kMaxLevels][2];
  // Finest level: search direction, its image under the operator, solution. side[0] is the residual.
  float *direction[2], *image[2], *solution[2];
};

inline void lay_out(const Hierarchy& grid, Channel& channel, Arena& arena) {
  for (int l = 0; l < grid.levels; ++l)
    for (int c = 0; c < 2; ++c) {
      channel.side[l][c] = take_plane(arena, grid.level[l].shape);
      channel.value[l][c] = take_plane(arena, grid.level[l].shape);
    }
  for (int c = 0; c < 2; ++c) {
    channel.direction[c] = take_plane(arena, grid.level[0].shape);
    channel.image[c] = take_plane(arena, grid.level[0].shape);
    channel.solution[c] = take_plane(arena, grid.level[0].shape);
  }
}

FF_INLINE VecFloat zero() { return VecFloat{}; }

FF_INLINE float sum_lanes(VecFloat v) {
  float sum = 0.0f;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

FF_INLINE float largest_lane(VecFloat v) {
  float largest = v[0];
  for (int i = 1; i < kLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

FF_INLINE VecFloat magnitude(VecFloat v) { return v > 0.0f ? v : -v; }

// ---- one level of the cycle

// A level as the row functions see it. On the finest level every link is 1 and known cells are told by a zero diagonal.
template <bool kFinest>
struct Sweep {
  const Level& level;
  float* const* side;
  float* const* value;

  FF_INLINE std::int64_t at(std::int64_t y) const { return y * level.shape.stride; }

  // Sum over the neighbours of cells i ... of colour c in row y of link times value.
  FF_INLINE VecFloat neighbours(int c, std::int64_t y, std::int64_t i) const {
    const std::int64_t stride = level.shape.stride, here = at(y) + i, left = here - 1 + ((y + c) & 1);
    const float* other = value[1 - c];
    if (kFinest)
      return (load(other + left) + load(other + left + 1)) +
             (load(other + here - stride) + load(other + here + stride));
    float* const* link = level.link;
    if (c == kRed)
      return (load(link[0] + here) * load(other + left) + load(link[1] + here) * load(other + left + 1)) +
             (load(link[2] + here) * load(other + here - stride) + load(link[3] + here) * load(other + here + stride));
    // A link is kept by its red cell: the left neighbour's link to the right, and so on.
    return (load(link[1] + left) * load(other + left) + load(link[0] + left + 1) * load(other + left + 1)) +
           (load(link[3] + here - stride) * load(other + here - stride) +
            load(link[2] + here + stride) * load(other + here + stride));
  }

  FF_INLINE VecFloat keep_unknown(std::int64_t here, VecFloat v) const {
    if (!kFinest) return v;  // known cells have no links there
    return load(level.inverse[kRed] + here) > 0.0f ? v : zero();
  }

  FF_INLINE void start_red(std::int64_t y) const {
    const Span span = level.span[y];
    for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
      const std::int64_t here = at(y) + i;
      store(value[kRed] + here, relax(load(level.inverse[kRed] + here), zero(), load(side[kRed] + here)));
    }
  }

  // Adds the new values times the right side to `product`.
  FF_INLINE void relax_row(int c, std::int64_t y, VecFloat& product) const {
    const Span span = level.span[y];
    for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
      const std::int64_t here = at(y) + i;
      const VecFloat right_side = load(side[c] + here);
      const VecFloat v = relax(load(level.inverse[c] + here), neighbours(c, y, i), right_side);
      store(value[c] + here, v);
      product += v * right_side;
    }
  }

  // After a red and a black half sweep from zero the residual is zero on black cells, and on red ones it is what the
  // black values brought.
  FF_INLINE VecFloat red_residual(std::int64_t y, std::int64_t i) const {
    return y < level.shape.height ? keep_unknown(at(y) + i, neighbours(kRed, y, i)) : zero();
  }

  FF_INLINE void restrict_rows(std::int64_t j, const Level& coarse, float* const* coarse_side) const {
    const Span span = coarse.span[j];
    const std::int64_t to = j * coarse.shape.stride, s = j & 1;
    for (std::int64_t k = span.begin; k < span.end; k += kLanes) {
      const std::int64_t i = 2 * k;
      const VecFloat low = red_residual(2 * j, i) + red_residual(2 * j + 1, i);
      const VecFloat high = red_residual(2 * j, i + kLanes) + red_residual(2 * j + 1, i + kLanes);
      VecFloat even, odd;
      unzip(low, high, even, odd);
      store(coarse_side[kRed] + to + k, s == 0 ? even : odd);
      store(coarse_side[kBlack] + to + k, s == 0 ? odd : even);
    }
  }

  FF_INLINE void add_correction(std::int64_t y, const Level& coarse, float* const* coarse_value) const {
    const Span span = level.span[y];
    const std::int64_t j = y / 2, from = j * coarse.shape.stride, s = j & 1;
    for (std::int64_t i = span.begin; i < span.end; i += 2 * kLanes) {
      const VecFloat red = load(coarse_value[kRed] + from + i / 2), black = load(coarse_value[kBlack] + from + i / 2);
      VecFloat low, high;
      zip(s == 0 ? red : black, s == 0 ? black : red, low, high);
      const std::int64_t here = at(y) + i;
      store(value[kRed] + here, load(value[kRed] + here) + keep_unknown(here, low));
      if (i + kLanes < span.end)
        store(value[kRed] + here + kLanes, load(value[kRed] + here + kLanes) + keep_unknown(here + kLanes, high));
    }
  }

  // Rows follow each other at the distance they need, so that a level is read once.
  void descend(const Level& coarse, float* const* coarse_side) const {
    const std::int64_t height = level.shape.height;
    VecFloat unused = zero();
    for (std::int64_t t = 0; t <= height; ++t) {
      if (t < height) start_red(t);
      if (t >= 1) relax_row(kBlack, t - 1, unused);
      // Coarse row j needs black rows up to 2 j + 2, which is t - 1.
      if (t >= 3 && t % 2 == 1) restrict_rows((t - 3) / 2, coarse, coarse_side);
    }
    for (std::int64_t j = (height - 1) / 2; j < coarse.shape.height; ++j) restrict_rows(j, coarse, coarse_side);
  }

  float ascend(const Level& coarse, float* const* coarse_value) const {
    const std::int64_t height = level.shape.height;
    VecFloat product = zero();
    for (std::int64_t t = 0; t < height + 2; ++t) {
      if (t < height) add_correction(t, coarse, coarse_value);
      if (t >= 1 && t - 1 < height) relax_row(kBlack, t - 1, product);
      if (t >= 2) relax_row(kRed, t - 2, product);
    }
    return sum_lanes(product);
  }
};

// value[0] = M^-1 side[0]; returns their product.
inline float cycle(const Hierarchy& grid, const Channel& channel) {
  const int last = grid.levels - 1;
  const auto coarse = [&](int l) { return Sweep<false>{grid.level[l], channel.side[l], channel.value[l]}; };
  const Sweep<true> finest{grid.level[0], channel.side[0], channel.value[0]};
  if (last == 0) {  // a single cell
    VecFloat product = zero();
    finest.relax_row(kRed, 0, product);
    return sum_lanes(product);
  }
  finest.descend(grid.level[1], channel.side[1]);
  for (int l = 1; l < last; ++l) coarse(l).descend(grid.level[l + 1], channel.side[l + 1]);
  coarse(last).start_red(0);  // the coarsest level is one cell
  for (int l = last - 1; l >= 1; --l) coarse(l).ascend(grid.level[l + 1], channel.value[l + 1]);
  return finest.ascend(grid.level[1], channel.value[1]);
}

// ---- conjugate gradients

struct Step {
  float curvature;  // direction . A direction
  float largest;    // of |direction|
};

// direction = value + beta direction, and its image under A. The last half sweep left red cells solved: (A value)_red =
// side_red.
inline Step turn(const Hierarchy& grid, const Channel& channel, float beta, bool first) {
  const Level& level = grid.level[0];
  const Sweep<true> sweep{level, channel.side[0], channel.value[0]};
  VecFloat curvature = zero(), largest = zero();
  for (std::int64_t y = 0; y < level.shape.height; ++y) {
    const Span span = level.span[y];
    for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
      const std::int64_t here = sweep.at(y) + i;
      const VecFloat diagonal = load(level.diagonal[kBlack] + here);
      const VecFloat black = load(channel.value[0][kBlack] + here);
      VecFloat move[2] = {load(channel.value[0][kRed] + here), black};
      VecFloat image[2] = {load(channel.side[0][kRed] + here),
                           diagonal > 0.0f ? diagonal * black - sweep.neighbours(kBlack, y, i) : zero()};
      for (int c = 0; c < 2; ++c) {
        if (!first) {
          move[c] += beta * load(channel.direction[c] + here);
          image[c] += beta * load(channel.image[c] + here);
        }
        store(channel.direction[c] + here, move[c]);
        store(channel.image[c] + here, image[c]);
        curvature += move[c] * image[c];
        const VecFloat size = magnitude(move[c]);
        largest = size > largest ? size : largest;
      }
    }
  }
  return {sum_lanes(curvature), largest_lane(largest)};
}

inline void advance(const Hierarchy& grid, const Channel& channel, float alpha, bool first) {
  const Level& level = grid.level[0];
  for (std::int64_t y = 0; y < level.shape.height; ++y) {
    const Span span = level.span[y];
    for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
      const std::int64_t here = y * level.shape.stride + i;
      for (int c = 0; c < 2; ++c) {
        const VecFloat step = alpha * load(channel.direction[c] + here);
        store(channel.solution[c] + here, first ? step : load(channel.solution[c] + here) + step);
        store(channel.side[0][c] + here, load(channel.side[0][c] + here) - alpha * load(channel.image[c] + here));
      }
    }
  }
}

inline void clear_values(const Hierarchy& grid, const Channel& channel) {
  for (int l = 0; l < grid.levels; ++l)
    for (int c = 0; c < 2; ++c) clear_plane(channel.value[l][c], grid.level[l].shape);
}

// The steps shrink by a factor that settles at once, so what is left after a step is the rest of a geometric series.
// That stands for the error itself, in grey levels, where a residual would say little.
inline void solve(const Hierarchy& grid, const Channel& channel, float tolerance) {
  constexpr int kMaxIterations = 100;
  constexpr float kFirstRate = 0.3f, kBestRate = 0.25f, kWorstRate = 0.8f;
  clear_values(grid, channel);
  float previous_product = 0.0f, previous_step = 0.0f;
  for (int iteration = 0; iteration < kMaxIterations; ++iteration) {
    const bool first = iteration == 0;
    const float product = cycle(grid, channel);
    const Step step = turn(grid, channel, first ? 0.0f : product / previous_product, first);
    if (!(product > 0.0f) || !(step.curvature > 0.0f)) {  // the residual is zero
      if (first) advance(grid, channel, 0.0f, true);
      return;
    }
    const float alpha = product / step.curvature;
    advance(grid, channel, alpha, first);
    const float size = alpha * step.largest;
    float rate = first ? kFirstRate : size / previous_step;
    rate = rate < kBestRate ? kBestRate : rate > kWorstRate ? kWorstRate : rate;
    if (size * rate / (1.0f - rate) < tolerance) return;
    previous_product = product;
    previous_step = size;
  }
}

}  // namespace blend_solve
}  // namespace FF_ISA
}  // namespace fastface
