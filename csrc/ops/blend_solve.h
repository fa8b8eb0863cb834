// Solves for h: conjugate gradients preconditioned by one symmetric multigrid V-cycle (red-black Gauss-Seidel forth and
// back, piecewise constant transfer). The cycle makes the number of iterations small and independent of the image's
// size, the conjugate gradients make convergence certain whatever the mask's shape. Tatebe, The multigrid
// preconditioned conjugate gradient method, 1993; Hestenes and Stiefel, Methods of conjugate gradients for solving
// linear systems, 1952.
//
// A red cell has black neighbours only, so red values follow from black ones. The iteration therefore runs on the black
// half alone: its residual is zero on red cells, and what the cycle's last, red, half sweep leaves behind is just what
// the eliminated operator needs (Reid, The use of conjugate gradients for systems of linear equations possessing
// "Property A", 1972).
#pragma once

#include "ops/blend_grid.h"

namespace fastface {
inline namespace FF_ISA {
namespace blend_solve {

using namespace blend_grid;

// One colour channel's arrays; by level: the right side and the value of the cycle. On the finest level side[kBlack]
// becomes the residual.
struct Channel {
  float* side[kMaxLevels][2];
  float* value[kMaxLevels][2];
  float *direction, *image, *solution;  // black cells: search direction, the operator on it, solution
};

inline void lay_out(const Hierarchy& grid, Channel& channel, Arena& arena) {
  for (int l = 0; l < grid.levels; ++l)
    for (int c = 0; c < 2; ++c) {
      channel.side[l][c] = take_plane(arena, grid.level[l].shape);
      channel.value[l][c] = take_plane(arena, grid.level[l].shape);
    }
  for (float** array : {&channel.direction, &channel.image, &channel.solution})
    *array = take_plane(arena, grid.level[0].shape);
}

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

// A level as the row functions see it. On the finest level every link is 1, known cells are told by a zero diagonal,
// and the right side is zero on red cells.
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

  FF_INLINE VecFloat keep_unknown_red(std::int64_t here, VecFloat v) const {
    if (!kFinest) return v;  // known cells have no links there
    return load(level.inverse[kRed] + here) > 0.0f ? v : zero();
  }

  // The first half sweep from zero.
  FF_INLINE void start_row(int c, std::int64_t y) const {
    const Span span = level.span[y];
    for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
      const std::int64_t here = at(y) + i;
      store(value[c] + here, relax(load(level.inverse[c] + here), zero(), load(side[c] + here)));
    }
  }

  // Adds the new values times the right side to `product`.
  FF_INLINE void relax_row(int c, std::int64_t y, VecFloat& product) const {
    const Span span = level.span[y];
    for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
      const std::int64_t here = at(y) + i;
      const bool zero_side = kFinest && c == kRed;
      const VecFloat right_side = zero_side ? zero() : load(side[c] + here);
      const VecFloat v = relax(load(level.inverse[c] + here), neighbours(c, y, i), right_side);
      store(value[c] + here, v);
      if (kFinest && c == kBlack) product += v * right_side;
    }
  }

  // After a red and a black half sweep from zero the residual is zero on black cells, and on red ones it is what the
  // black values brought.
  FF_INLINE VecFloat red_residual(std::int64_t y, std::int64_t i) const {
    if (y >= level.shape.height || i >= level.shape.stride) return zero();
    return keep_unknown_red(at(y) + i, neighbours(kRed, y, i));
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

  FF_INLINE void correct(std::int64_t here, VecFloat correction) const {
    if (kFinest) {
      store(value[kRed] + here, keep_unknown_red(here, correction));  // the value before is zero
    } else {
      store(value[kRed] + here, load(value[kRed] + here) + correction);
    }
  }

  FF_INLINE void add_correction(std::int64_t y, const Level& coarse, float* const* coarse_value) const {
    const Span span = level.span[y];
    const std::int64_t j = y / 2, from = j * coarse.shape.stride, s = j & 1;
    for (std::int64_t i = span.begin; i < span.end; i += 2 * kLanes) {
      const VecFloat red = load(coarse_value[kRed] + from + i / 2), black = load(coarse_value[kBlack] + from + i / 2);
      VecFloat low, high;
      zip(s == 0 ? red : black, s == 0 ? black : red, low, high);
      correct(at(y) + i, low);
      if (i + kLanes < span.end) correct(at(y) + i + kLanes, high);
    }
  }

  // `start(y)` brings row y's black values. Rows follow each other at the distance they need, so that a level is read
  // once.
  template <class Start>
  FF_INLINE void descend(const Level& coarse, float* const* coarse_side, Start start) const {
    const std::int64_t height = level.shape.height;
    for (std::int64_t y = 0; y < height; ++y) {
      start(y);
      // Coarse row j needs black rows up to 2 j + 2.
      if (y >= 2 && y % 2 == 0) restrict_rows(y / 2 - 1, coarse, coarse_side);
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

inline Sweep<true> finest_sweep(const Hierarchy& grid, const Channel& channel) {
  return {grid.level[0], channel.side[0], channel.value[0]};
}

inline Sweep<false> coarse_sweep(const Hierarchy& grid, const Channel& channel, int level) {
  return {grid.level[level], channel.side[level], channel.value[level]};
}

// value = M^-1 residual; returns their product. `start(y)` gives the finest level's black values.
template <class Start>
FF_INLINE float cycle(const Hierarchy& grid, const Channel& channel, Start start) {
  const int last = grid.levels - 1;
  finest_sweep(grid, channel).descend(grid.level[1], channel.side[1], start);
  for (int l = 1; l < last; ++l) {
    const Sweep<false> sweep = coarse_sweep(grid, channel, l);
    const std::int64_t height = sweep.level.shape.height;
    VecFloat unused = zero();
    sweep.start_row(kRed, 0);
    sweep.descend(grid.level[l + 1], channel.side[l + 1], [&](std::int64_t y) {
      if (y + 1 < height) sweep.start_row(kRed, y + 1);
      sweep.relax_row(kBlack, y, unused);
    });
  }
  coarse_sweep(grid, channel, last).start_row(kRed, 0);  // the coarsest level is one cell
  for (int l = last - 1; l >= 1; --l) coarse_sweep(grid, channel, l).ascend(grid.level[l + 1], channel.value[l + 1]);
  return finest_sweep(grid, channel).ascend(grid.level[1], channel.value[1]);
}

// ---- conjugate gradients on the black cells

struct Step {
  float curvature;  // direction . A direction
  float largest;    // of |direction|
};

// direction = value + beta direction, and the operator on it: diagonal times black values less what they make of red
// ones.
inline Step turn(const Hierarchy& grid, const Channel& channel, float beta, bool first) {
  const Sweep<true> sweep = finest_sweep(grid, channel);
  const Level& level = grid.level[0];
  VecFloat curvature = zero(), largest = zero();
  for (std::int64_t y = 0; y < level.shape.height; ++y) {
    const Span span = level.span[y];
    for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
      const std::int64_t here = sweep.at(y) + i;
      const VecFloat diagonal = load(level.diagonal + here);
      VecFloat move = load(channel.value[0][kBlack] + here);
      VecFloat image = diagonal > 0.0f ? diagonal * move - sweep.neighbours(kBlack, y, i) : zero();
      if (!first) {
        move += beta * load(channel.direction + here);
        image += beta * load(channel.image + here);
      }
      store(channel.direction + here, move);
      store(channel.image + here, image);
      curvature += move * image;
      const VecFloat size = magnitude(move);
      largest = size > largest ? size : largest;
    }
  }
  return {sum_lanes(curvature), largest_lane(largest)};
}

// Moves the solution and the residual of row y by alpha along the direction.
FF_INLINE void advance_row(const Level& level, const Channel& channel, std::int64_t y, float alpha, bool first) {
  const Span span = level.span[y];
  for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
    const std::int64_t here = y * level.shape.stride + i;
    float *residual = channel.side[0][kBlack] + here, *solution = channel.solution + here;
    const VecFloat move = alpha * load(channel.direction + here);
    store(solution, first ? move : load(solution) + move);
    store(residual, load(residual) - alpha * load(channel.image + here));
  }
}

// Zeros wherever the sweeps do not write.
FF_INLINE void clear_outside(float* plane, const Level& level) {
  clear_border(plane, level.shape, level.shape.stride);
  for (std::int64_t y = 0; y < level.shape.height; ++y) {
    const Span span = level.span[y];
    float* row = plane + y * level.shape.stride;
    clear(row, span.begin);
    clear(row + span.end, level.shape.stride - span.end);
  }
}

inline void clear_values(const Hierarchy& grid, const Channel& channel) {
  for (int l = 0; l < grid.levels; ++l)
    for (float* plane : channel.value[l]) clear_outside(plane, grid.level[l]);
  clear(channel.value[grid.levels - 1][kBlack],
        grid.level[grid.levels - 1].shape.stride);  // one red cell, no black one
  clear_outside(channel.solution, grid.level[0]);
}

inline void clear_sides(const Hierarchy& grid, const Channel& channel) {
  const Level& level = grid.level[0];
  for (float* side : channel.side[0])
    for (std::int64_t y = 0; y < level.shape.height; ++y)
      clear(side + y * level.shape.stride + level.span[y].begin, level.span[y].end - level.span[y].begin);
}

// Puts b on the right side of cell (x, y). What a red cell is given it hands on to the black cells around it.
inline void add_to_side(const Hierarchy& grid, const Channel& channel, std::int64_t x, std::int64_t y, float b) {
  const Level& level = grid.level[0];
  const std::int64_t stride = level.shape.stride, at = y * stride + x / 2;
  float* black = channel.side[0][kBlack];
  if (((x + y) & 1) == kBlack) {
    black[at] += b;
    return;
  }
  channel.side[0][kRed][at] = b;
  const float handed = level.inverse[kRed][at] * b;
  const std::int64_t left = at - 1 + (y & 1);
  for (const std::int64_t to : {left, left + 1, at - stride, at + stride})
    if (level.diagonal[to] > 0.0f) black[to] += handed;
}

// Red values of a solved row, from black ones and the red right sides.
FF_INLINE VecFloat solved_red(const Hierarchy& grid, const Channel& channel, std::int64_t y, std::int64_t i) {
  float* const value[2] = {channel.value[0][kRed], channel.solution};
  const Level& level = grid.level[0];
  const Sweep<true> sweep{level, channel.side[0], value};
  const std::int64_t here = sweep.at(y) + i;
  return relax(load(level.inverse[kRed] + here), sweep.neighbours(kRed, y, i), load(channel.side[0][kRed] + here));
}

// The steps shrink by a factor that settles at once, so what is left after a step is the rest of a geometric series.
// That stands for the error itself, in grey levels, where a residual would say little. Leaves the black half in
// `solution`.
inline void solve(const Hierarchy& grid, const Channel& channel, float tolerance) {
  constexpr int kMaxIterations = 100;
  constexpr float kFirstRate = 0.4f, kBestRate = 0.35f, kWorstRate = 0.8f;
  const Sweep<true> sweep = finest_sweep(grid, channel);
  const Level& level = grid.level[0];
  clear_values(grid, channel);
  if (grid.levels == 1) {  // a single cell, and that is red
    clear(channel.solution, level.shape.stride);
    return;
  }
  float alpha = 0.0f, product = 0.0f, size = 0.0f;
  int iteration = 0;
  for (; iteration < kMaxIterations; ++iteration) {
    const bool first = iteration == 0;
    const float previous_product = product, previous_size = size;
    product = cycle(grid, channel, [&](std::int64_t y) {
      if (!first) advance_row(level, channel, y, alpha, iteration == 1);
      sweep.start_row(kBlack, y);
    });
    const Step step = turn(grid, channel, first ? 0.0f : product / previous_product, first);
    alpha = 0.0f;
    if (!(product > 0.0f) || !(step.curvature > 0.0f)) break;  // the residual is zero
    alpha = product / step.curvature;
    size = alpha * step.largest;
    float rate = first ? kFirstRate : size / previous_size;
    rate = rate < kBestRate ? kBestRate : rate > kWorstRate ? kWorstRate : rate;
    if (size * rate / (1.0f - rate) < tolerance) break;
  }
  for (std::int64_t y = 0; y < level.shape.height; ++y) advance_row(level, channel, y, alpha, iteration == 0);
}

}  // namespace blend_solve
}  // namespace FF_ISA
}  // namespace fastface
