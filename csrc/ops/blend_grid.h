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
constexpr std::int64_t kBytePad = 64;
constexpr std::int64_t kPad = 16;  // the widest vector, so that layouts do not depend on the instruction set

FF_INLINE std::int64_t round_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }
FF_INLINE std::int64_t min_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
FF_INLINE std::int64_t max_of(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

FF_INLINE VecFloat zero() { return VecFloat{}; }

FF_INLINE void clear(float* data, std::int64_t count) {
  std::memset(data, 0, static_cast<std::size_t>(count) * sizeof(float));
}

// Sizes of one level. A plane is one colour of one array: rows -1 ... height, each `stride` long, with at least one
// zero between a row's last element and the next row's first. Vectors at the end of a row may read into the next: what
// they make of it ends up in cells beyond the border, whose inverse diagonal and links are zero.
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
  Span* span;         // (height,)
  float* inverse[2];  // 1 / diagonal, 0 where a cell is known
  float* diagonal;    // of black cells, finest level only
  float* link[4];     // coarse levels only, by red cell: to the left, right, upper and lower black neighbour
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
  // Finest level, natural order, bytes with a ring of zeros. 1 where unknown; of unknown cells the number of neighbours
  // in the image and of those outside the mask.
  std::uint8_t *unknown, *degree, *outside;
  std::int64_t bytes_stride;

  FF_INLINE std::uint8_t* unknown_row(std::int64_t y) const { return unknown + (y + 1) * bytes_stride + kBytePad; }
  FF_INLINE std::uint8_t* degree_row(std::int64_t y) const { return degree + (y + 1) * bytes_stride + kBytePad; }
  FF_INLINE std::uint8_t* outside_row(std::int64_t y) const { return outside + (y + 1) * bytes_stride + kBytePad; }
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
  grid.bytes_stride = round_up(shape.natural, kBytePad) + 2 * kBytePad;
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

constexpr int kByteLanes = 4 * kLanes;
using VecByte = Vec<std::uint8_t, kByteLanes>;

// Bytes two by two: the even of a row in the low halves, the odd in the high ones.
using VecPair = Vec<std::uint16_t, kLanes>;
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pairs of bytes are taken apart as little-endian");

FF_INLINE VecPair load_pairs(const std::uint8_t* from) {
  VecPair pairs;
  std::memcpy(&pairs, from, sizeof pairs);
  return pairs;
}
FF_INLINE VecFloat as_float(VecPair v) { return __builtin_convertvector(__builtin_convertvector(v, VecInt), VecFloat); }
FF_INLINE VecFloat low_byte(VecPair v) { return as_float(v & 0xff); }
FF_INLINE VecFloat high_byte(VecPair v) { return as_float(v >> 8); }
FF_INLINE VecFloat sum_of_pair(VecPair v) { return as_float((v & 0xff) + (v >> 8)); }

// Rows of bytes are worked through in whole vectors: beyond the box they hold zeros and get zeros.
inline void copy_mask(const Hierarchy& grid, const std::uint8_t* mask, std::int64_t image_width) {
  const Box& box = grid.box;
  std::memset(grid.unknown, 0, grid.bytes());
  for (std::int64_t y = 0; y < box.height(); ++y) {
    std::uint8_t* row = grid.unknown_row(y);
    std::memcpy(row, mask + (box.y0 + y) * image_width + box.x0, static_cast<std::size_t>(box.width()));
    for (std::int64_t x = 0; x < box.width(); x += kByteLanes) {
      const VecByte m = load<kByteLanes>(row + x);
      store<kByteLanes>(row + x, m < 1 ? m : VecByte{} + 1);
    }
    const std::int64_t first = first_nonzero(row, box.width());
    grid.level[0].span[y] = span_of(first, last_nonzero(row, first, box.width()));
  }
}

inline void count_neighbours(const Hierarchy& grid, std::int64_t y, std::int64_t image_height,
                             std::int64_t image_width) {
  const Box& box = grid.box;
  const std::uint8_t* here = grid.unknown_row(y);
  const std::uint8_t* above = grid.unknown_row(y - 1);
  const std::uint8_t* below = grid.unknown_row(y + 1);
  std::uint8_t *degree = grid.degree_row(y), *outside = grid.outside_row(y);
  const std::int64_t row = box.y0 + y, width = box.width();
  const std::uint8_t whole = static_cast<std::uint8_t>(4 - (row == 0) - (row == image_height - 1));
  for (std::int64_t x = 0; x < width; x += kByteLanes)
    store<kByteLanes>(degree + x, load<kByteLanes>(here + x) * whole);
  if (box.x0 == 0) degree[0] = static_cast<std::uint8_t>(degree[0] - here[0]);
  if (box.x1 == image_width) degree[width - 1] = static_cast<std::uint8_t>(degree[width - 1] - here[width - 1]);
  for (std::int64_t x = 0; x < width; x += kByteLanes) {
    const VecByte inside = (load<kByteLanes>(here + x - 1) + load<kByteLanes>(here + x + 1)) +
                           (load<kByteLanes>(above + x) + load<kByteLanes>(below + x));
    store<kByteLanes>(outside + x, load<kByteLanes>(degree + x) - load<kByteLanes>(here + x) * inside);
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

// Elements of a half row in whole vectors.
FF_INLINE std::int64_t whole_half(const Shape& shape) { return round_up(shape.half, kLanes); }

inline void set_up_finest(const Hierarchy& grid) {
  const Level& level = grid.level[0];
  const Shape& shape = level.shape;
  for (float* plane : {level.inverse[kRed], level.inverse[kBlack], level.diagonal})
    clear_border(plane, shape, whole_half(shape));
  for (std::int64_t y = 0; y < shape.height; ++y) {
    const std::uint8_t* degree = grid.degree_row(y);
    float *even = level.inverse[y & 1] + y * shape.stride, *odd = level.inverse[1 - (y & 1)] + y * shape.stride;
    float* diagonal = level.diagonal + y * shape.stride;
    for (std::int64_t i = 0; i < shape.half; i += kLanes) {
      const VecPair pairs = load_pairs(degree + 2 * i);
      const VecFloat low = low_byte(pairs), high = high_byte(pairs);
      store(even + i, inverse_degree(low));
      store(odd + i, inverse_degree(high));
      store(diagonal + i, (y & 1) == kBlack ? low : high);
    }
  }
}

// ---- coarse levels

// Zeros around natural rows that are written in whole vectors.
inline void clear_natural_border(const Level& level) {
  const Shape& shape = level.shape;
  const std::int64_t used = round_up(shape.width, kLanes);
  for (float* array : {level.east, level.south, level.boundary, level.unknown}) {
    clear(array - shape.natural_first(), shape.natural_first());
    for (std::int64_t y = 0; y < shape.height; ++y) clear(array + y * shape.natural + used, shape.natural - used);
    clear(array + shape.height * shape.natural, shape.natural);
  }
}

inline void coarsen_finest(const Hierarchy& grid) {
  const Level& to = grid.level[1];
  for (std::int64_t j = 0; j < to.shape.height; ++j) {
    const std::uint8_t *u0 = grid.unknown_row(2 * j), *u1 = grid.unknown_row(2 * j + 1);
    const std::uint8_t* u2 = grid.unknown_row(2 * j + 2);
    const std::uint8_t *o0 = grid.outside_row(2 * j), *o1 = grid.outside_row(2 * j + 1);
    const std::int64_t row = j * to.shape.natural;
    for (std::int64_t i = 0; i < to.shape.width; i += kLanes) {
      const std::int64_t x = 2 * i;
      const VecPair east0 = load_pairs(u0 + x + 1), east1 = load_pairs(u1 + x + 1);
      const VecPair here1 = load_pairs(u1 + x), south = here1 & load_pairs(u2 + x);
      const VecPair outside0 = load_pairs(o0 + x), outside1 = load_pairs(o1 + x);
      const auto any = [](VecPair counts) { return (counts | (counts >> 1) | (counts >> 2)) & 0x0101; };  // counts <= 4
      const VecFloat count = sum_of_pair(load_pairs(u0 + x) + here1);
      store(to.east + row + i, coarse_link(as_float((east0 & (east0 >> 8)) & 1), as_float((east1 & (east1 >> 8)) & 1)));
      store(to.south + row + i, coarse_link(low_byte(south), high_byte(south)));
      store(to.boundary + row + i,
            coarse_conductance(sum_of_pair(outside0 + outside1), sum_of_pair(any(outside0) + any(outside1)), count));
      store(to.unknown + row + i, count > 0.0f ? zero() + 1.0f : zero());
    }
  }
}

// Even and odd elements of a natural row from x on.
FF_INLINE void load_unzipped(const float* row, std::int64_t x, VecFloat& even, VecFloat& odd) {
  unzip(load(row + x), load(row + x + kLanes), even, odd);
}

inline void coarsen(const Level& from, const Level& to) {
  for (std::int64_t j = 0; j < to.shape.height; ++j) {
    const std::int64_t row = j * to.shape.natural;
    // The row below the last one holds zeros.
    const std::int64_t r0 = 2 * j * from.shape.natural, r1 = r0 + from.shape.natural;
    for (std::int64_t i = 0; i < to.shape.width; i += kLanes) {
      const std::int64_t x = 2 * i;
      VecFloat unused, east0, east1, south0, south1;
      load_unzipped(from.east + r0, x, unused, east0);
      load_unzipped(from.east + r1, x, unused, east1);
      load_unzipped(from.south + r1, x, south0, south1);
      VecFloat b[4], u[4];
      load_unzipped(from.boundary + r0, x, b[0], b[1]);
      load_unzipped(from.boundary + r1, x, b[2], b[3]);
      load_unzipped(from.unknown + r0, x, u[0], u[1]);
      load_unzipped(from.unknown + r1, x, u[2], u[3]);
      VecFloat touching = zero();
      for (const VecFloat& conductance : b) touching += conductance > 0.0f ? zero() + 1.0f : zero();
      const VecFloat count = (u[0] + u[1]) + (u[2] + u[3]);
      store(to.east + row + i, coarse_link(east0, east1));
      store(to.south + row + i, coarse_link(south0, south1));
      store(to.boundary + row + i, coarse_conductance((b[0] + b[1]) + (b[2] + b[3]), touching, count));
      store(to.unknown + row + i, count > 0.0f ? zero() + 1.0f : zero());
    }
  }
}

// From natural order to colours.
inline void split_level(const Level& level) {
  const Shape& shape = level.shape;
  for (float* link : level.link) clear_border(link, shape, whole_half(shape));
  for (float* plane : level.inverse) clear_border(plane, shape, whole_half(shape));
  for (std::int64_t y = 0; y < shape.height; ++y) {
    const std::int64_t row = y * shape.natural, at = y * shape.stride, s = y & 1;
    const float *east = level.east + row, *south = level.south + row, *north = level.south + row - shape.natural;
    const float* boundary = level.boundary + row;
    for (std::int64_t i = 0; i < shape.half; i += kLanes) {
      VecFloat inverse[2];
      for (int part = 0; part < 2; ++part) {
        const std::int64_t x = 2 * i + part * kLanes;
        const VecFloat links = (load(east + x) + load(east + x - 1)) + (load(south + x) + load(north + x));
        const VecFloat diagonal = links + load(boundary + x);
        inverse[part] = diagonal > 0.0f ? 1.0f / diagonal : zero();
      }
      VecFloat even, odd, left, right, up[2], down[2];
      unzip(inverse[0], inverse[1], even, odd);
      load_unzipped(east, 2 * i + s - 1, left, right);
      load_unzipped(north, 2 * i, up[0], up[1]);
      load_unzipped(south, 2 * i, down[0], down[1]);
      store(level.inverse[kRed] + at + i, s == 0 ? even : odd);
      store(level.inverse[kBlack] + at + i, s == 0 ? odd : even);
      store(level.link[0] + at + i, left);
      store(level.link[1] + at + i, right);
      store(level.link[2] + at + i, up[s]);
      store(level.link[3] + at + i, down[s]);
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

// After set_up_finest.
inline void set_up_coarse(const Hierarchy& grid) {
  for (int l = 1; l < grid.levels; ++l) {
    clear_natural_border(grid.level[l]);
    if (l == 1) {
      coarsen_finest(grid);
    } else {
      coarsen(grid.level[l - 1], grid.level[l]);
    }
    split_level(grid.level[l]);
    coarse_spans(grid.level[l - 1], grid.level[l]);
  }
}

}  // namespace blend_grid
}  // namespace FF_ISA
}  // namespace fastface
