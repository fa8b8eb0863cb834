// The grids of blend on a device: their memory, and their set-up from a mask.
//
// Cells keep their place in the image: cell (y, x) of level l covers the pixels (y, x) << l. They are kept by colour of
// the checkerboard, as in blend_grid.h: element i of row y of colour c is cell x = 2 i + ((y + c) & 1). Around the box of
// each level lies a ring of zeros.
#pragma once

#include "core/launch.h"
#include "core/workspace.h"
#include "ops/blend.h"
#include "ops/blend_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace blend_device {

constexpr int kRed = 0, kBlack = 1;
constexpr int kMostLevels = 16;  // 2^15 pixels a side
constexpr int kChannels = 3;
constexpr int kPiece = 512;  // pixels that a block opens

// ---- memory

struct Level {
  int height, width, stride, natural;  // stride: of a row of one colour; natural: of a row of both
  std::uint32_t plane, cells;          // floats of such an array
  std::int64_t grid, channel;          // where the level's arrays begin
};

struct Layout {
  int levels;
  std::int64_t grid_floats, channel_floats;
  Level level[kMostLevels];
};

// Arrays of one shape, one behind the other; each begins with a row and an element of the ring. Of 32767 pixels a side the
// floats of all of them can still be counted by 32 bits.
struct Planes {
  float* data;
  std::uint32_t floats;
  int stride;
  FF_DEVICE float& at(int which, int y, int i) const {
    return data[static_cast<std::uint32_t>(which) * floats + static_cast<std::uint32_t>((y + 1) * stride + (i + 1))];
  }
};

struct Grid {  // of one level
  Planes inverse;  // by colour
  Planes link;     // of red cells: to the left, right, upper and lower black one
  Planes natural;  // kEast ... kUnknown
};

enum : int { kEast, kSouth, kBoundary, kUnknown };

struct Unknowns {  // of one level and channel, by colour
  Planes side, value;
};

struct Box {
  int y0, x0, y1, x1;
  FF_DEVICE int rows() const { return y1 - y0; }
  FF_DEVICE int first() const { return x0 >> 1; }  // element
  FF_DEVICE int elements() const { return ((x1 - 1) >> 1) + 1 - first(); }
  FF_DEVICE bool holds(int y, int x) const { return y >= y0 && y < y1 && x >= x0 && x < x1; }
  FF_DEVICE Box halved(int times) const {
    return {y0 >> times, x0 >> times, ((y1 - 1) >> times) + 1, ((x1 - 1) >> times) + 1};
  }
};

struct Found {  // in a piece or a frame
  float largest;
  int y0, x0, y1, x1;
  FF_DEVICE void add(const Found& other) {
    largest = other.largest > largest ? other.largest : largest;
    y0 = other.y0 < y0 ? other.y0 : y0;
    x0 = other.x0 < x0 ? other.x0 : x0;
    y1 = other.y1 > y1 ? other.y1 : y1;
    x1 = other.x1 > x1 ? other.x1 : x1;
  }
};

FF_DEVICE Found nothing() { return {0.0f, kMostThreads * kMostThreads, kMostThreads * kMostThreads, 0, 0}; }

struct State {
  Box box;
  int levels;  // 0: h is 0
};

struct Task {
  Blend op;
  Layout layout;
  int pieces;
  Found* found;     // (B, pieces)
  State* state;     // (B,)
  float* grids;     // (B, grid_floats)
  float* channels;  // (B, 3, channel_floats)

  FF_DEVICE int height() const { return static_cast<int>(op.mask.shape[1]); }
  FF_DEVICE int width() const { return static_cast<int>(op.mask.shape[2]); }
  FF_DEVICE std::int64_t pixels() const { return op.mask.shape[1] * op.mask.shape[2]; }

  FF_DEVICE bool in_image(int y, int x) const { return y >= 0 && y < height() && x >= 0 && x < width(); }
  FF_DEVICE bool unknown(int frame, int y, int x) const {
    return in_image(y, x) && op.mask.data[frame * pixels() + static_cast<std::int64_t>(y) * width() + x] != 0;
  }
  FF_DEVICE const std::uint8_t* photo(int frame) const {
    return op.photo.data + (op.photo.shape[0] == 1 ? 0 : frame * pixels() * kChannels);
  }
  FF_DEVICE float jump(int frame, int y, int x, int c) const {
    const std::int64_t at = (static_cast<std::int64_t>(y) * width() + x) * kChannels + c;
    return boundary_jump(photo(frame)[at], op.source.data[frame * pixels() * kChannels + at]);
  }
  // body(y, x) for the four neighbours in the image.
  template <class Body>
  FF_DEVICE void neighbours(int y, int x, Body&& body) const {
    if (x > 0) body(y, x - 1);
    if (x + 1 < width()) body(y, x + 1);
    if (y > 0) body(y - 1, x);
    if (y + 1 < height()) body(y + 1, x);
  }

  FF_DEVICE Grid grid(int frame, int l) const {
    const Level& level = layout.level[l];
    float* at = grids + frame * layout.grid_floats + level.grid;
    return {{at, level.plane, level.stride},
            {at + 2 * level.plane, level.plane, level.stride},
            {at + 6 * level.plane, level.cells, level.natural}};
  }
  FF_DEVICE Unknowns unknowns(int frame, int c, int l) const {
    const Level& level = layout.level[l];
    float* at = channels + (static_cast<std::int64_t>(frame) * kChannels + c) * layout.channel_floats + level.channel;
    return {{at, level.plane, level.stride}, {at + 2 * level.plane, level.plane, level.stride}};
  }
};

FF_DEVICE int cell_of(int y, int i, int colour) { return 2 * i + ((y + colour) & 1); }

FF_SCHEDULE inline Layout make_layout(std::int64_t height, std::int64_t width) {
  Layout layout;
  layout.grid_floats = layout.channel_floats = 0;
  for (layout.levels = 0; layout.levels < kMostLevels;) {
    Level& level = layout.level[layout.levels];
    level.height = static_cast<int>(height);
    level.width = static_cast<int>(width);
    level.stride = (level.width + 1) / 2 + 2;
    level.natural = level.width + 2;
    level.plane = static_cast<std::uint32_t>((height + 2) * level.stride);
    level.cells = static_cast<std::uint32_t>((height + 2) * level.natural);
    level.grid = layout.grid_floats;
    level.channel = layout.channel_floats;
    const bool finest = layout.levels == 0;
    const std::int64_t plane = level.plane, cells = level.cells;
    layout.grid_floats += finest ? 2 * plane : 6 * plane + 4 * cells;
    layout.channel_floats += (finest ? 7 : 4) * plane;
    ++layout.levels;
    if (height == 1 && width == 1) break;
    height = (height + 1) / 2;
    width = (width + 1) / 2;
  }
  return layout;
}

FF_SCHEDULE inline Task make_task(const Blend& op, Arena& arena) {
  const std::int64_t frames = op.mask.shape[0], pixels = op.mask.shape[1] * op.mask.shape[2];
  Task task;
  task.op = op;
  task.layout = make_layout(op.mask.shape[1], op.mask.shape[2]);
  task.pieces = static_cast<int>((pixels + kPiece - 1) / kPiece);
  task.found = arena.take<Found>(frames * task.pieces);
  task.state = arena.take<State>(frames);
  task.grids = arena.take<float>(frames * task.layout.grid_floats);
  task.channels = arena.take<float>(frames * kChannels * task.layout.channel_floats);
  return task;
}

FF_SCHEDULE inline bool empty(const Blend& op) { return op.mask.shape[0] * op.mask.shape[1] * op.mask.shape[2] == 0; }

// ---- set up

struct SetUp {
  static constexpr int kThreads = 1024, kBlocksPerCore = 1;
  struct Shared {};
  Task task;

  FF_DEVICE void operator()(const Block& block, Shared&) const {
    const int frame = block.index;
    const Found found = block.reduce((task.pieces + kWarp - 1) / kWarp, kWarp, nothing(), [&](Found& sum, int y, int x) {
      const int piece = y * kWarp + x;
      if (piece < task.pieces) sum.add(task.found[static_cast<std::int64_t>(frame) * task.pieces + piece]);
    });
    State state;
    state.box = {found.y0, found.x0, found.y1, found.x1};
    state.levels = 0;
    if (found.largest >= task.op.tolerance) {
      // A level more until the box is one cell.
      do {
        ++state.levels;
      } while (state.levels < task.layout.levels && (state.box.halved(state.levels - 1).rows() > 1 ||
                                                     columns(state.box.halved(state.levels - 1)) > 1));
    }
    block.each(1, [&](int) { task.state[frame] = state; });
    if (state.levels == 0) return;
    finest(block, frame, state.box);
    for (int l = 1; l < state.levels; ++l) {
      coarsen(block, frame, l, state.box);
      split(block, frame, l, state.box.halved(l));
    }
  }

  FF_DEVICE static int columns(const Box& box) { return box.x1 - box.x0; }

  // body(y, i) for the elements of the box and of the ring around them.
  template <class Body>
  FF_DEVICE static void ring(const Block& block, const Box& box, Body&& body) {
    block.each(box.rows() + 2, box.elements() + 2,
               [&](int y, int i) { body(box.y0 - 1 + y, box.first() - 1 + i); });
  }

  FF_DEVICE void finest(const Block& block, int frame, const Box& box) const {
    const Grid grid = task.grid(frame, 0);
    ring(block, box, [&](int y, int i) {
      for (int colour = 0; colour < 2; ++colour) {
        const int x = cell_of(y, i, colour);
        const int degree = !task.unknown(frame, y, x)
                               ? 0
                               : (x > 0) + (x + 1 < task.width()) + (y > 0) + (y + 1 < task.height());
        grid.inverse.at(colour, y, i) = inverse_degree(static_cast<float>(degree));
      }
    });
  }

  // What a level says of a cell: links to the right and down, conductance to the boundary, 1 where unknown.
  struct Cell {
    float east, south, boundary, unknown;
  };

  FF_DEVICE Cell finest_cell(int frame, int y, int x) const {
    if (!task.unknown(frame, y, x)) return {0.0f, 0.0f, 0.0f, 0.0f};
    int outside = 0;
    task.neighbours(y, x, [&](int row, int column) { outside += task.unknown(frame, row, column) ? 0 : 1; });
    return {task.unknown(frame, y, x + 1) ? 1.0f : 0.0f, task.unknown(frame, y + 1, x) ? 1.0f : 0.0f,
            static_cast<float>(outside), 1.0f};
  }

  FF_DEVICE static Cell coarse_cell(const Grid& grid, int y, int x) {
    return {grid.natural.at(kEast, y, x), grid.natural.at(kSouth, y, x), grid.natural.at(kBoundary, y, x), grid.natural.at(kUnknown, y, x)};
  }

  FF_DEVICE void coarsen(const Block& block, int frame, int l, const Box& finest_box) const {
    const Grid from = task.grid(frame, l - 1), to = task.grid(frame, l);
    const Box box = finest_box.halved(l), fine = finest_box.halved(l - 1);
    block.each(box.rows() + 2, columns(box) + 2, [&](int row, int column) {
      const int y = box.y0 - 1 + row, x = box.x0 - 1 + column;
      Cell cell{0.0f, 0.0f, 0.0f, 0.0f};
      if (box.holds(y, x)) {
        Cell part[4];
        for (int i = 0; i < 4; ++i) {
          const int py = 2 * y + i / 2, px = 2 * x + i % 2;
          part[i] = !fine.holds(py, px) ? cell : l == 1 ? finest_cell(frame, py, px) : coarse_cell(from, py, px);
        }
        cell = joined(part);
      }
      to.natural.at(kEast, y, x) = cell.east;
      to.natural.at(kSouth, y, x) = cell.south;
      to.natural.at(kBoundary, y, x) = cell.boundary;
      to.natural.at(kUnknown, y, x) = cell.unknown;
    });
  }

  FF_DEVICE static Cell joined(const Cell (&part)[4]) {
    float sum = 0.0f, touching = 0.0f, count = 0.0f;
    for (const Cell& p : part) {
      sum += p.boundary;
      touching += p.boundary > 0.0f ? 1.0f : 0.0f;
      count += p.unknown;
    }
    return {coarse_link(part[1].east, part[3].east), coarse_link(part[2].south, part[3].south),
            coarse_conductance(sum, touching, count), count > 0.0f ? 1.0f : 0.0f};
  }

  // From natural order to colours.
  FF_DEVICE void split(const Block& block, int frame, int l, const Box& box) const {
    const Grid grid = task.grid(frame, l);
    ring(block, box, [&](int y, int i) {
      for (int colour = 0; colour < 2; ++colour) {
        const int x = cell_of(y, i, colour);
        float link[4] = {0.0f, 0.0f, 0.0f, 0.0f}, inverse = 0.0f;
        if (box.holds(y, x)) {
          link[0] = grid.natural.at(kEast, y, x - 1);
          link[1] = grid.natural.at(kEast, y, x);
          link[2] = grid.natural.at(kSouth, y - 1, x);
          link[3] = grid.natural.at(kSouth, y, x);
          const float diagonal = (link[0] + link[1]) + (link[2] + link[3]) + grid.natural.at(kBoundary, y, x);
          inverse = diagonal > 0.0f ? 1.0f / diagonal : 0.0f;
        }
        grid.inverse.at(colour, y, i) = inverse;
        if (colour == kRed)
          for (int n = 0; n < 4; ++n) grid.link.at(n, y, i) = link[n];
      }
    });
  }
};

}  // namespace blend_device
}  // namespace FF_ISA
}  // namespace fastface
