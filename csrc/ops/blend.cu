// Schedule for devices: the method of blend_solve.h, a block of threads for each colour channel of each frame.
//
//   open    every pixel, as if h were 0; the largest jump around the mask and the box around it, piece by piece
//   set up  by frame: collects the pieces; where h is not 0, the coarse operators of the multigrid
//   solve   by frame and channel: conjugate gradients until the steps have become small enough; the finished pixels
//
// The number of launches is fixed; whether there is anything to solve, and for how long, blocks find out by themselves.
#include "ops/blend_grid.cuh"

namespace fastface {
inline namespace FF_ISA {
namespace blend_device {

// ---- open

struct Open {
  static constexpr int kThreads = 256, kBlocksPerCore = 4;
  struct Shared {};
  Task task;

  FF_DEVICE void operator()(const Block& block, Shared&) const {
    const int frame = block.index / task.pieces, piece = block.index % task.pieces;
    const int first = piece * kPiece, pixels = static_cast<int>(task.pixels());
    const Found found =
        block.reduce(kPiece / kWarp, kWarp, nothing(), [&](Found& sum, int line, int lane) {
          const int pixel = first + line * kWarp + lane;
          if (pixel < pixels) open(frame, pixel, sum);
        });
    block.each(1, [&](int) { task.found[block.index] = found; });
  }

  FF_DEVICE void open(int frame, int pixel, Found& sum) const {
    const Blend& op = task.op;
    const std::int64_t in_photo = static_cast<std::int64_t>(pixel) * kChannels;
    const std::int64_t at = frame * task.pixels() * kChannels + in_photo;
    const std::uint8_t* photo = task.photo(frame) + in_photo;
    if (op.mask.data[frame * task.pixels() + pixel] == 0) {
      for (int c = 0; c < kChannels; ++c) op.image.data[at + c] = photo[c];
      if (op.exact.data != nullptr)
        for (int c = 0; c < kChannels; ++c) op.exact.data[at + c] = static_cast<float>(photo[c]);
      return;
    }
    for (int c = 0; c < kChannels; ++c) op.image.data[at + c] = finished_pixel(op.source.data[at + c]);
    if (op.exact.data != nullptr)
      for (int c = 0; c < kChannels; ++c) op.exact.data[at + c] = op.source.data[at + c];
    const int y = pixel / task.width(), x = pixel % task.width();
    float largest = 0.0f;
    task.neighbours(y, x, [&](int row, int column) {
      if (task.unknown(frame, row, column)) return;
      for (int c = 0; c < kChannels; ++c) {
        const float size = __builtin_fabsf(task.jump(frame, row, column, c));
        largest = size > largest ? size : largest;
      }
    });
    sum.add({largest, y, x, y + 1, x + 1});
  }
};

// ---- solve

struct Sum {
  float value;
  FF_DEVICE void add(const Sum& other) { value += other.value; }
};

struct Step {
  float curvature;  // direction . A direction
  float largest;    // of |direction|
  FF_DEVICE void add(const Step& other) {
    curvature += other.curvature;
    largest = other.largest > largest ? other.largest : largest;
  }
};

// The march of the black cells: search direction, the operator on it, solution.
enum : int { kDirection, kImage, kSolution };

struct Solve {
  static constexpr int kThreads = 1024, kBlocksPerCore = 1;
  static constexpr int kMostIterations = 100;
  struct Shared {};
  Task task;

  // One level of one channel of one frame.
  struct Sweep {
    Grid grid;
    Unknowns u;
    Box box;
    bool finest;

    template <class Body>
    FF_DEVICE void each(const Block& block, Body&& body) const {
      block.each(box.rows(), box.elements(), [&](int y, int i) { body(box.y0 + y, box.first() + i); });
    }
    template <class T, class Body>
    FF_DEVICE T reduce(const Block& block, T start, Body&& body) const {
      return block.reduce(box.rows(), box.elements(), start,
                          [&](T& sum, int y, int i) { body(sum, box.y0 + y, box.first() + i); });
    }

    // Sum of value(y, i) of the other colour's four elements around element i of row y, each times its link.
    template <class Value>
    FF_DEVICE float around(int colour, int y, int i, Value&& value) const {
      const int left = i - 1 + ((y + colour) & 1);
      if (finest) return (value(y, left) + value(y, left + 1)) + (value(y - 1, i) + value(y + 1, i));
      const Planes& link = grid.link;
      if (colour == kRed)
        return (link.at(0, y, i) * value(y, left) + link.at(1, y, i) * value(y, left + 1)) +
               (link.at(2, y, i) * value(y - 1, i) + link.at(3, y, i) * value(y + 1, i));
      // A link is kept by its red cell: the left neighbour's link to the right, and so on.
      return (link.at(1, y, left) * value(y, left) + link.at(0, y, left + 1) * value(y, left + 1)) +
             (link.at(3, y - 1, i) * value(y - 1, i) + link.at(2, y + 1, i) * value(y + 1, i));
    }

    // The red half sweep from zero, of which nothing is kept: it is as quickly done again. On the finest level the right
    // side of red cells is 0.
    FF_DEVICE float started_red(int y, int i) const {
      return finest ? 0.0f : relax(grid.inverse.at(kRed, y, i), 0.0f, u.side.at(kRed, y, i));
    }
    FF_DEVICE float red(int y, int i) const { return u.value.at(kRed, y, i); }
    FF_DEVICE float black(int y, int i) const { return u.value.at(kBlack, y, i); }

    FF_DEVICE void start_black(int y, int i) const {
      const float from_red =
          finest ? 0.0f : around(kBlack, y, i, [&](int row, int k) { return started_red(row, k); });
      u.value.at(kBlack, y, i) = relax(grid.inverse.at(kBlack, y, i), from_red, u.side.at(kBlack, y, i));
    }

    // After a red and a black half sweep from zero the residual is zero on black cells, and on red ones it is what the
    // black values brought.
    FF_DEVICE float residual(int y, int x) const {  // of a red cell
      const int i = x >> 1;
      if (!(grid.inverse.at(kRed, y, i) > 0.0f)) return 0.0f;
      return around(kRed, y, i, [&](int row, int k) { return black(row, k); });
    }
  };

  FF_DEVICE Sweep sweep(int frame, int c, int l, const Box& finest_box) const {
    return {task.grid(frame, l), task.unknowns(frame, c, l), finest_box.halved(l), l == 0};
  }

  FF_DEVICE static void restrict_to(const Block& block, const Sweep& fine, const Sweep& coarse) {
    coarse.each(block, [&](int y, int i) {
      for (int colour = 0; colour < 2; ++colour) {
        const int x = cell_of(y, i, colour);
        // Two of the four cells are red.
        coarse.u.side.at(colour, y, i) =
            !coarse.box.holds(y, x) ? 0.0f : fine.residual(2 * y, 2 * x) + fine.residual(2 * y + 1, 2 * x + 1);
      }
    });
  }

  // Adds the coarse values, where there are some, and relaxes black, then red. Returns new black values times the right
  // side on the finest level, where it is asked for, and 0 on others.
  FF_DEVICE static float ascend(const Block& block, const Sweep& fine, const Planes& coarse, bool corrected) {
    const auto red = [&](int y, int i) {
      const int x = cell_of(y, i, kRed);
      const float value = fine.started_red(y, i);
      if (!corrected) return value;
      // Read whether it counts or not: a ring of zeros lies around, and neither load waits for the other.
      const float inverse = fine.grid.inverse.at(kRed, y, i), more = coarse.at(((y >> 1) + (x >> 1)) & 1, y >> 1, x >> 2);
      return inverse > 0.0f ? value + more : value;
    };
    const auto relax_black = [&](int y, int i) {
      const float side = fine.u.side.at(kBlack, y, i);
      const float value = relax(fine.grid.inverse.at(kBlack, y, i), fine.around(kBlack, y, i, red), side);
      fine.u.value.at(kBlack, y, i) = value;
      return value * side;
    };
    float product = 0.0f;
    if (fine.finest) {
      product = fine.reduce(block, Sum{0.0f}, [&](Sum& sum, int y, int i) { sum.value += relax_black(y, i); }).value;
    } else {
      fine.each(block, relax_black);
    }
    fine.each(block, [&](int y, int i) {
      const float side = fine.finest ? 0.0f : fine.u.side.at(kRed, y, i);
      const float from_black = fine.around(kRed, y, i, [&](int row, int k) { return fine.black(row, k); });
      fine.u.value.at(kRed, y, i) = relax(fine.grid.inverse.at(kRed, y, i), from_black, side);
    });
    return product;
  }

  // One V-cycle from level 0's black values, which are started; returns the product of the outcome and the residual.
  FF_DEVICE float cycle(const Block& block, int frame, int c, const State& state) const {
    for (int l = 1; l < state.levels; ++l) {
      const Sweep coarse = sweep(frame, c, l, state.box);
      restrict_to(block, sweep(frame, c, l - 1, state.box), coarse);
      coarse.each(block, [&](int y, int i) { coarse.start_black(y, i); });
    }
    float product = 0.0f;
    for (int l = state.levels - 1; l >= 0; --l) {
      const bool corrected = l + 1 < state.levels;
      const Planes coarse = task.unknowns(frame, c, corrected ? l + 1 : l).value;
      product = ascend(block, sweep(frame, c, l, state.box), coarse, corrected);
    }
    return product;
  }

  FF_DEVICE void operator()(const Block& block, Shared&) const {
    const int frame = block.index / kChannels, c = block.index % kChannels;
    const State state = task.state[frame];
    if (state.levels == 0) return;
    for (int l = 0; l < state.levels; ++l) {
      const Sweep level = sweep(frame, c, l, state.box);
      SetUp::ring(block, level.box, [&](int y, int i) {
        for (int colour = 0; colour < 2; ++colour)
          level.u.side.at(colour, y, i) = level.u.value.at(colour, y, i) = 0.0f;
      });
    }
    const Sweep top = sweep(frame, c, 0, state.box);
    const Level& shape = task.layout.level[0];
    const Planes march{top.u.side.data + 4 * shape.plane, shape.plane, shape.stride};
    SetUp::ring(block, top.box, [&](int y, int i) { march.at(kSolution, y, i) = 0.0f; });
    set_sides(block, frame, c, top);
    iterate(block, frame, c, state, top, march);
    finish(block, frame, c, top, march);
  }

  // What the boundary asks of each cell. What a red cell is given it hands on to the black ones around it: the iteration
  // runs on the black half alone.
  FF_DEVICE void set_sides(const Block& block, int frame, int c, const Sweep& top) const {
    const auto asked = [&](int y, int x) {
      float sum = 0.0f;
      if (task.unknown(frame, y, x))
        task.neighbours(y, x, [&](int row, int column) {
          if (!task.unknown(frame, row, column)) sum += task.jump(frame, row, column, c);
        });
      return sum;
    };
    top.each(block, [&](int y, int i) { top.u.side.at(kRed, y, i) = asked(y, cell_of(y, i, kRed)); });
    top.each(block, [&](int y, int i) {
      const float handed = top.around(kBlack, y, i, [&](int row, int k) {
        return relax(top.grid.inverse.at(kRed, row, k), 0.0f, top.u.side.at(kRed, row, k));
      });
      const int x = cell_of(y, i, kBlack);
      top.u.side.at(kBlack, y, i) = task.unknown(frame, y, x) ? asked(y, x) + handed : 0.0f;
    });
  }

  // The steps shrink by a factor that settles at once, so what is left after a step is the rest of a geometric series.
  FF_DEVICE void iterate(const Block& block, int frame, int c, const State& state, const Sweep& top,
                         const Planes& march) const {
    constexpr float kFirstRate = 0.4f, kBestRate = 0.35f, kWorstRate = 0.8f;
    float alpha = 0.0f, product = 0.0f, size = 0.0f;
    const auto advance = [&](int y, int i) {
      march.at(kSolution, y, i) += alpha * march.at(kDirection, y, i);
      top.u.side.at(kBlack, y, i) -= alpha * march.at(kImage, y, i);
    };
    for (int iteration = 0; iteration < kMostIterations; ++iteration) {
      const bool first = iteration == 0;
      const float previous_product = product, previous_size = size;
      top.each(block, [&](int y, int i) {
        if (!first) advance(y, i);
        top.start_black(y, i);
      });
      product = cycle(block, frame, c, state);
      const float beta = first ? 0.0f : product / previous_product;
      const Step step = top.reduce(block, Step{0.0f, 0.0f}, [&](Step& sum, int y, int i) {
        const float inverse = top.grid.inverse.at(kBlack, y, i);
        float move = top.black(y, i), moved = 0.0f;
        if (inverse > 0.0f) moved = move / inverse - top.around(kBlack, y, i, [&](int row, int k) { return top.red(row, k); });
        if (!first) {
          move += beta * march.at(kDirection, y, i);
          moved += beta * march.at(kImage, y, i);
        }
        march.at(kDirection, y, i) = move;
        march.at(kImage, y, i) = moved;
        sum.add({move * moved, __builtin_fabsf(move)});
      });
      alpha = 0.0f;
      if (!(product > 0.0f) || !(step.curvature > 0.0f)) break;  // the residual is zero
      alpha = product / step.curvature;
      size = alpha * step.largest;
      float rate = first ? kFirstRate : size / previous_size;
      rate = rate < kBestRate ? kBestRate : rate > kWorstRate ? kWorstRate : rate;
      if (size * rate / (1.0f - rate) < task.op.tolerance) break;
    }
    top.each(block, advance);
  }

  FF_DEVICE void finish(const Block& block, int frame, int c, const Sweep& top, const Planes& march) const {
    const Blend& op = task.op;
    top.each(block, [&](int y, int i) {
      for (int colour = 0; colour < 2; ++colour) {
        const int x = cell_of(y, i, colour);
        if (!task.unknown(frame, y, x)) continue;
        const float h = colour == kBlack
                            ? march.at(kSolution, y, i)
                            : relax(top.grid.inverse.at(kRed, y, i),
                                    top.around(kRed, y, i, [&](int row, int k) { return march.at(kSolution, row, k); }),
                                    top.u.side.at(kRed, y, i));
        const std::int64_t at =
            (frame * task.pixels() + static_cast<std::int64_t>(y) * task.width() + x) * kChannels + c;
        const float exact = op.source.data[at] + h;
        op.image.data[at] = finished_pixel(exact);
        if (op.exact.data != nullptr) op.exact.data[at] = exact;
      }
    });
  }
};

}  // namespace blend_device

std::int64_t workspace_bytes(const Blend& op) {
  if (blend_device::empty(op)) return 0;
  Arena arena(nullptr);
  blend_device::make_task(op, arena);
  return arena.used();
}

FF_SCHEDULE Status run(const Blend& op, Stream stream) {
  using namespace blend_device;
  if (empty(op)) return Status::kOk;
  Arena arena(op.workspace.data);
  const Task task = make_task(op, arena);
  const std::int64_t frames = op.mask.shape[0];
  Status status = launch(stream, frames * task.pieces, Open{task});
  if (status == Status::kOk) status = launch(stream, frames, SetUp{task});
  if (status == Status::kOk) status = launch(stream, frames * kChannels, Solve{task});
  return status;
}

}  // namespace FF_ISA
}  // namespace fastface
