// The grids of blend's multigrid and their set-up from a mask; shared by the colour channels of a frame.
//
// Cells are kept by colour of the checkerboard: row y of colour c holds the cells x = 2 i + ((y + c) & 1) side by side.
// So a half sweep of red-black Gauss-Seidel runs over contiguous memory, and the four cells of a coarse one are element
// i of both colours of two rows. A cell's neighbours have the other colour: above and below at i, left and right at i -
// 1 + s, i + s with s = (y + c) & 1. Beside each array lie zeros, so that the border needs no case of its own.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/simd.h"
#include "core/workspace.h"
#include "ops/blend_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace blend_grid {

constexpr int kRed = 0, kBlack = 1;
constexpr int kMaxLevels = 18;
constexpr std::int64_t kPad = 16;  // the widest vector, so that layouts do not depend on the instruction set

FF_INLINE std::int64_t round_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }
FF_INLINE std::int64_t min_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
FF_INLINE std::int64_t max_of(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

FF_INLINE void clear(float* data, std::int64_t count) {
  std::memset(data, 0, static_cast<std::size_t>(count) * sizeof(float));
}

// Sizes of one level. A plane is one colour of one array: rows -1 ... height, each `stride` long, with at least one zero
// between a row's last element and the next row's first. Vectors at the end of a row may read into the next: what they
// make of it ends up in cells beyond the border, whose inverse diagonal and links are zero.
struct Shape {
  std::int64_t height, width, half, stride, natural;

  static Shape of(std::int64_t height, std::int64_t width) {
    Shape s;
    s.height = height;
    s.width = width;
    s.half = (width + 1) / 2;
    s.stride = round_up(s.half + 1, kPad);
    s.natural = 2 * s.stride;
    return s;
  }
  std::int64_t plane() const { return (height + 2) * stride + 3 * kPad; }
  std::int64_t first() const { return stride + kPad; }  // element 0 of row 0
  std::int64_t natural_plane() const { return (height + 2) * natural + kPad; }
  std::int64_t natural_first() const { return natural + kPad; }
};

// Stretch of a row that holds all its unknowns, in whole vectors of a half row.
struct Span {
  std::int32_t begin, end;
};

struct Level {
  Shape shape;
  Span* span;          // (height,)
  float* inverse[2];   // 1 / diagonal, 0 where a cell is known
  float* diagonal;    // of black cells, finest level only
  float* link[4];      // coarse levels only, by red cell: to the left, right, upper and lower black neighbour
  // Natural order, for set-up: links to the right and down, conductance to the boundary, 1 where unknown.
  float *east, *south, *boundary, *unknown;
};

// The unknown part of a mask in image coordinates.
struct Box {
  std::int64_t x0, y0, x1, y1;  // x1, y1 exclusive
  bool empty() const { return x0 >= x1; }
  std::int64_t height() const { return y1 - y0; }
  std::int64_t width() const { return x1 - x0; }
};

struct Hierarchy {
  Box box;
  int levels;
  Level level[kMaxLevels];
  // Finest level, natural order, bytes with a ring of zeros. 1 where unknown; of unknown cells the number of neighbours in
  // the image and of those outside the mask.
  std::uint8_t *unknown, *degree, *outside;
  std::int64_t bytes_stride;

  FF_INLINE std::uint8_t* unknown_row(std::int64_t y) const { return unknown + (y + 1) * bytes_stride + kPad; }
  FF_INLINE std::uint8_t* degree_row(std::int64_t y) const { return degree + (y + 1) * bytes_stride + kPad; }
  FF_INLINE std::uint8_t* outside_row(std::int64_t y) const { return outside + (y + 1) * bytes_stride + kPad; }
  FF_INLINE std::size_t bytes() const { return static_cast<std::size_t>(bytes_stride * (box.height() + 3)); }
};

FF_INLINE float* take_plane(Arena& arena, const Shape& shape) {
  float* at = arena.take<float>(shape.plane());
  return at == nullptr ? nullptr : at + shape.first();
}


// Zeros around what is written into a plane: the rows before the first and after the last, and the rest of every row
// beyond its first `used` elements.
FF_INLINE void clear_border(float* plane, const Shape& shape, std::int64_t used) {
  clear(plane - shape.first(), shape.first());
  for (std::int64_t y = 0; y < shape.height; ++y) clear(plane + y * shape.stride + used, shape.stride - used);
  clear(plane + shape.height * shape.stride, shape.stride + 2 * kPad);
}

FF_INLINE float* take_natural(Arena& arena, const Shape& shape) {
  float* at = arena.take<float>(shape.natural_plane());
  return at == nullptr ? nullptr : at + shape.natural_first();
}

inline void lay_out(Hierarchy& grid, Arena& arena) {
  Shape shape = Shape::of(grid.box.height(), grid.box.width());
  grid.bytes_stride = shape.natural + 2 * kPad;
  for (std::uint8_t** array : {&grid.unknown, &grid.degree, &grid.outside})
    *array = arena.take<std::uint8_t>(static_cast<std::int64_t>(grid.bytes()));
  grid.levels = 0;
  for (;;) {
    Level& level = grid.level[grid.levels];
    const bool finest = grid.levels == 0;
    level.shape = shape;
    level.span = arena.take<Span>(shape.height);
    for (int c = 0; c < 2; ++c) level.inverse[c] = take_plane(arena, shape);
    level.diagonal = finest ? take_plane(arena, shape) : nullptr;
    for (float*& link : level.link) link = finest ? nullptr : take_plane(arena, shape);
    for (float** array : {&level.east, &level.south, &level.boundary, &level.unknown})
      *array = finest ? nullptr : take_natural(arena, shape);
    ++grid.levels;
    if ((shape.height == 1 && shape.width == 1) || grid.levels == kMaxLevels) return;
    shape = Shape::of((shape.height + 1) / 2, (shape.width + 1) / 2);
  }
}

FF_INLINE std::int64_t first_nonzero(const std::uint8_t* row, std::int64_t width) {
  std::int64_t x = 0;
  for (std::uint64_t eight; x + 8 <= width; x += 8) {
    std::memcpy(&eight, row + x, 8);
    if (eight != 0) break;
  }
  while (x < width && row[x] == 0) ++x;
  return x;
}

// Below `first` where there is none.
FF_INLINE std::int64_t last_nonzero(const std::uint8_t* row, std::int64_t first, std::int64_t width) {
  std::int64_t end = width;
  for (std::uint64_t eight; end - 8 >= first; end -= 8) {
    std::memcpy(&eight, row + end - 8, 8);
    if (eight != 0) break;
  }
  while (end > first && row[end - 1] == 0) --end;
  return end - 1;
}

inline Box find_box(const std::uint8_t* mask, std::int64_t height, std::int64_t width) {
  Box box{width, 0, 0, 0};
  bool any = false;
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint8_t* row = mask + y * width;
    const std::int64_t first = first_nonzero(row, width);
    if (first == width) continue;
    if (!any) box.y0 = y;
    any = true;
    box.y1 = y + 1;
    box.x0 = min_of(box.x0, first);
    box.x1 = max_of(box.x1, last_nonzero(row, first, width) + 1);
  }
  return any ? box : Box{0, 0, 0, 0};
}

// ---- finest level

inline Span span_of(std::int64_t first_cell, std::int64_t last_cell) {
  if (first_cell > last_cell) return {0, 0};
  const std::int64_t begin = first_cell / 2 / kLanes * kLanes, end = round_up(last_cell / 2 + 1, kLanes);
  return {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)};
}

inline void copy_mask(const Hierarchy& grid, const std::uint8_t* mask, std::int64_t image_width) {
  const Box& box = grid.box;
  std::memset(grid.unknown, 0, grid.bytes());
  for (std::int64_t y = 0; y < box.height(); ++y) {
    const std::uint8_t* FF_RESTRICT from = mask + (box.y0 + y) * image_width + box.x0;
    std::uint8_t* FF_RESTRICT to = grid.unknown_row(y);
    for (std::int64_t x = 0; x < box.width(); ++x) to[x] = from[x] != 0 ? 1 : 0;
    const std::int64_t first = first_nonzero(to, box.width());
    grid.level[0].span[y] = span_of(first, last_nonzero(to, first, box.width()));
  }
}

inline void count_neighbours(const Hierarchy& grid, std::int64_t y, std::int64_t image_height,
                             std::int64_t image_width) {
  const Box& box = grid.box;
  const std::uint8_t* here = grid.unknown_row(y);
  const std::uint8_t* above = grid.unknown_row(y - 1);
  const std::uint8_t* below = grid.unknown_row(y + 1);
  std::uint8_t* FF_RESTRICT degree = grid.degree_row(y);
  std::uint8_t* FF_RESTRICT outside = grid.outside_row(y);
  const std::int64_t row = box.y0 + y, width = box.width();
  const std::uint8_t whole = static_cast<std::uint8_t>(4 - (row == 0) - (row == image_height - 1));
  for (std::int64_t x = 0; x < width; ++x) degree[x] = static_cast<std::uint8_t>(here[x] * whole);
  if (box.x0 == 0) degree[0] = static_cast<std::uint8_t>(degree[0] - here[0]);
  if (box.x1 == image_width) degree[width - 1] = static_cast<std::uint8_t>(degree[width - 1] - here[width - 1]);
  for (std::int64_t x = 0; x < width; ++x) {
    const std::uint8_t inside = static_cast<std::uint8_t>(here[x - 1] + here[x + 1] + above[x] + below[x]);
    outside[x] = static_cast<std::uint8_t>(degree[x] - here[x] * inside);
  }
}

// The bytes of the finest level; enough to find the cells at the boundary.
inline void set_up_bytes(const Hierarchy& grid, const std::uint8_t* mask, std::int64_t image_height,
                         std::int64_t image_width) {
  copy_mask(grid, mask, image_width);
  std::memset(grid.degree, 0, grid.bytes());
  std::memset(grid.outside, 0, grid.bytes());
  for (std::int64_t y = 0; y < grid.box.height(); ++y) count_neighbours(grid, y, image_height, image_width);
}

inline void set_up_finest(const Hierarchy& grid) {
  const Level& level = grid.level[0];
  const Shape& shape = level.shape;
  for (float* plane : {level.inverse[kRed], level.inverse[kBlack], level.diagonal})
    clear_border(plane, shape, shape.half);
  for (std::int64_t y = 0; y < shape.height; ++y) {
    for (int c = 0; c < 2; ++c) {
      float* FF_RESTRICT inverse = level.inverse[c] + y * shape.stride;
      const std::uint8_t* FF_RESTRICT from = grid.degree_row(y) + ((y + c) & 1);
      for (std::int64_t i = 0; i < shape.half; ++i) inverse[i] = inverse_degree(from[2 * i]);
    }
    float* FF_RESTRICT diagonal = level.diagonal + y * shape.stride;
    const std::uint8_t* FF_RESTRICT from = grid.degree_row(y) + ((y + kBlack) & 1);
    for (std::int64_t i = 0; i < shape.half; ++i) diagonal[i] = static_cast<float>(from[2 * i]);
  }
}

// ---- coarse levels

inline void clear_natural(const Level& level) {
  for (float* array : {level.east, level.south, level.boundary, level.unknown})
    clear(array - level.shape.natural_first(), level.shape.natural_plane());
}

inline void coarsen_finest(const Hierarchy& grid) {
  const Level& to = grid.level[1];
  const std::int64_t width = to.shape.width, natural = to.shape.natural;
  for (std::int64_t j = 0; j < to.shape.height; ++j) {
    const std::uint8_t* u0 = grid.unknown_row(2 * j);
    const std::uint8_t* u1 = grid.unknown_row(2 * j + 1);
    const std::uint8_t* u2 = grid.unknown_row(2 * j + 2);
    const std::uint8_t* o0 = grid.outside_row(2 * j);
    const std::uint8_t* o1 = grid.outside_row(2 * j + 1);
    float* FF_RESTRICT east = to.east + j * natural;
    float* FF_RESTRICT south = to.south + j * natural;
    float* FF_RESTRICT boundary = to.boundary + j * natural;
    float* FF_RESTRICT unknown = to.unknown + j * natural;
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t x = 2 * i;
      east[i] = coarse_link(static_cast<float>(u0[x + 1] & u0[x + 2]), static_cast<float>(u1[x + 1] & u1[x + 2]));
      south[i] = coarse_link(static_cast<float>(u1[x] & u2[x]), static_cast<float>(u1[x + 1] & u2[x + 1]));
      const int count = u0[x] + u0[x + 1] + u1[x] + u1[x + 1];
      const int touching = (o0[x] != 0) + (o0[x + 1] != 0) + (o1[x] != 0) + (o1[x + 1] != 0);
      const int sum = o0[x] + o0[x + 1] + o1[x] + o1[x + 1];
      boundary[i] =
          coarse_conductance(static_cast<float>(sum), static_cast<float>(touching), static_cast<float>(count));
      unknown[i] = count > 0 ? 1.0f : 0.0f;
    }
  }
}

inline void coarsen(const Level& from, const Level& to) {
  const std::int64_t width = to.shape.width, natural = to.shape.natural;
  for (std::int64_t j = 0; j < to.shape.height; ++j) {
    // Rows beyond the last hold zeros, and so do columns.
    const std::int64_t r0 = 2 * j * from.shape.natural, r1 = r0 + from.shape.natural;
    const float *e0 = from.east + r0, *e1 = from.east + r1, *s1 = from.south + r1;
    const float *b0 = from.boundary + r0, *b1 = from.boundary + r1, *u0 = from.unknown + r0, *u1 = from.unknown + r1;
    float* FF_RESTRICT east = to.east + j * natural;
    float* FF_RESTRICT south = to.south + j * natural;
    float* FF_RESTRICT boundary = to.boundary + j * natural;
    float* FF_RESTRICT unknown = to.unknown + j * natural;
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t x = 2 * i;
      east[i] = coarse_link(e0[x + 1], e1[x + 1]);
      south[i] = coarse_link(s1[x], s1[x + 1]);
      const float count = (u0[x] + u0[x + 1]) + (u1[x] + u1[x + 1]);
      const float touching = ((b0[x] > 0.0f ? 1.0f : 0.0f) + (b0[x + 1] > 0.0f ? 1.0f : 0.0f)) +
                             ((b1[x] > 0.0f ? 1.0f : 0.0f) + (b1[x + 1] > 0.0f ? 1.0f : 0.0f));
      boundary[i] = coarse_conductance((b0[x] + b0[x + 1]) + (b1[x] + b1[x + 1]), touching, count);
      unknown[i] = count > 0.0f ? 1.0f : 0.0f;
    }
  }
}

// From natural order to colours.
inline void split_level(const Level& level, float* FF_RESTRICT inverse) {
  const Shape& shape = level.shape;
  for (float* link : level.link) clear_border(link, shape, shape.half);
  for (float* plane : level.inverse) clear_border(plane, shape, shape.half);
  clear(inverse, shape.natural);
  for (std::int64_t y = 0; y < shape.height; ++y) {
    const std::int64_t row = y * shape.natural;
    const float *east = level.east + row, *south = level.south + row, *north = level.south + row - shape.natural;
    const float* boundary = level.boundary + row;
    for (std::int64_t x = 0; x < shape.width; ++x) {
      const float diagonal = ((east[x] + east[x - 1]) + (south[x] + north[x])) + boundary[x];
      inverse[x] = diagonal > 0.0f ? 1.0f / diagonal : 0.0f;
    }
    const std::int64_t at = y * shape.stride, s = y & 1;
    float* FF_RESTRICT left = level.link[0] + at;
    float* FF_RESTRICT right = level.link[1] + at;
    float* FF_RESTRICT up = level.link[2] + at;
    float* FF_RESTRICT down = level.link[3] + at;
    float* FF_RESTRICT inverse_red = level.inverse[kRed] + at;
    float* FF_RESTRICT inverse_black = level.inverse[kBlack] + at;
    for (std::int64_t i = 0; i < shape.half; ++i) {
      const std::int64_t x = 2 * i + s;
      left[i] = east[x - 1];
      right[i] = east[x];
      up[i] = north[x];
      down[i] = south[x];
      inverse_red[i] = inverse[x];
      inverse_black[i] = inverse[2 * i + 1 - s];
    }
  }
}

inline void coarse_spans(const Level& from, const Level& to) {
  for (std::int64_t j = 0; j < to.shape.height; ++j) {
    Span span = from.span[2 * j];
    if (2 * j + 1 < from.shape.height) {
      const Span other = from.span[2 * j + 1];
      if (span.begin == span.end) {
        span = other;
      } else if (other.begin != other.end) {
        span.begin = span.begin < other.begin ? span.begin : other.begin;
        span.end = span.end > other.end ? span.end : other.end;
      }
    }
    // A coarse half row has half the elements of a fine one.
    to.span[j] = span.begin == span.end ? Span{0, 0} : span_of(span.begin, span.end - 1);
  }
}

// After set_up_finest. `scratch` holds one natural row of the finest level.
inline void set_up_coarse(const Hierarchy& grid, float* scratch) {
  for (int l = 1; l < grid.levels; ++l) {
    clear_natural(grid.level[l]);
    if (l == 1) {
      coarsen_finest(grid);
    } else {
      coarsen(grid.level[l - 1], grid.level[l]);
    }
    split_level(grid.level[l], scratch);
    coarse_spans(grid.level[l - 1], grid.level[l]);
  }
}

}  // namespace blend_grid
}  // namespace FF_ISA
}  // namespace fastface
