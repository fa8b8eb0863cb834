// Schedule: a frame is set up once for its three channels, each channel is solved on its own, and the rows are finished
// together. Frames of a batch go to different threads; of a single frame the channels do. Either way a channel's
// arithmetic is one thread's, so the result does not depend on how many there are.
#include "ops/blend.h"

#include <cstring>

#include "core/parallel.h"
#include "ops/blend_grid.h"
#include "ops/blend_kernel.h"
#include "ops/blend_solve.h"

namespace fastface {
inline namespace FF_ISA {
namespace {

using namespace blend_grid;

constexpr int kChannels = 3;
constexpr std::int64_t kRowsPerTask = 32;

struct Plan {
  std::int64_t frames, height, width, slots, slot_bytes;
};

struct Boundary {
  std::int64_t count;
  std::int16_t *x, *y;    // within the box
  float* sum[kChannels];  // right sides
};

struct Slot {
  Hierarchy grid;
  Boundary boundary;
  blend_solve::Channel channel[kChannels];
  float* rows;  // a finished row for each task
  std::int64_t row_stride;
};

std::int64_t row_tasks(const Box& box) { return (box.height() + kRowsPerTask - 1) / kRowsPerTask; }

void take_slot(const Box& box, Slot& slot, Arena& arena) {
  slot.grid.box = box;
  blend_grid::lay_out(slot.grid, arena);
  const Shape& shape = slot.grid.level[0].shape;
  slot.row_stride = shape.natural * kChannels;
  const std::int64_t cells = box.height() * box.width();
  slot.boundary.x = arena.take<std::int16_t>(cells);
  slot.boundary.y = arena.take<std::int16_t>(cells);
  for (float*& sum : slot.boundary.sum) sum = arena.take<float>(cells);
  slot.rows = arena.take<float>(slot.row_stride * row_tasks(box));
  for (blend_solve::Channel& channel : slot.channel) blend_solve::lay_out(slot.grid, channel, arena);
}

Plan make_plan(const Blend& op) {
  Plan plan;
  plan.frames = op.mask.shape[0];
  plan.height = op.mask.shape[1];
  plan.width = op.mask.shape[2];
  plan.slots = plan.frames < op.threads ? plan.frames : op.threads;
  if (plan.slots < 1) plan.slots = 1;
  plan.slot_bytes = 0;
  if (plan.height > 0 && plan.width > 0) {
    Slot slot;
    Arena measure(nullptr);
    take_slot(Box{0, 0, plan.width, plan.height}, slot, measure);
    plan.slot_bytes = measure.used();
  }
  return plan;
}

struct Frame {
  const Plan* plan;
  const std::uint8_t* photo;
  const float* source;
  const std::uint8_t* mask;
  std::uint8_t* image;
  float* exact;
  float tolerance;
};

Frame frame_at(const Blend& op, const Plan& plan, std::int64_t index) {
  const std::int64_t pixels = plan.height * plan.width;
  Frame frame;
  frame.plan = &plan;
  frame.photo = op.photo.data + (op.photo.shape[0] == 1 ? 0 : index * pixels * kChannels);
  frame.source = op.source.data + index * pixels * kChannels;
  frame.mask = op.mask.data + index * pixels;
  frame.image = op.image.data + index * pixels * kChannels;
  frame.exact = op.exact.data == nullptr ? nullptr : op.exact.data + index * pixels * kChannels;
  frame.tolerance = op.tolerance;
  return frame;
}

// ---- boundary

// Adds up what the known neighbours of the cell at image pixel (row, column) ask for.
FF_INLINE void gather_neighbours(const Frame& frame, std::int64_t row, std::int64_t column, float (&sum)[kChannels],
                                 float& largest) {
  const Plan& plan = *frame.plan;
  constexpr int kDown[4] = {0, 0, -1, 1}, kRight[4] = {-1, 1, 0, 0};
  for (int n = 0; n < 4; ++n) {
    const std::int64_t y = row + kDown[n], x = column + kRight[n];
    if (y < 0 || y >= plan.height || x < 0 || x >= plan.width) continue;
    const std::int64_t pixel = y * plan.width + x;
    if (frame.mask[pixel] != 0) continue;
    for (int c = 0; c < kChannels; ++c) {
      const float jump = boundary_jump(frame.photo[pixel * kChannels + c], frame.source[pixel * kChannels + c]);
      sum[c] += jump;
      const float size = __builtin_fabsf(jump);
      largest = size > largest ? size : largest;
    }
  }
}

// Lists the cells that touch the boundary, with their right sides, and returns the largest jump.
float gather_boundary(const Frame& frame, const Slot& slot, Boundary& boundary) {
  const Hierarchy& grid = slot.grid;
  float largest = 0.0f;
  boundary.count = 0;
  for (std::int64_t y = 0; y < grid.box.height(); ++y) {
    const std::uint8_t* outside = grid.outside_row(y);
    for (std::int64_t x8 = 0; x8 < grid.box.width(); x8 += 8) {
      std::uint64_t eight;
      std::memcpy(&eight, outside + x8, 8);
      if (eight == 0) continue;
      for (std::int64_t x = x8; x < x8 + 8; ++x) {
        if (outside[x] == 0) continue;
        float sum[kChannels] = {0.0f, 0.0f, 0.0f};
        gather_neighbours(frame, grid.box.y0 + y, grid.box.x0 + x, sum, largest);
        boundary.y[boundary.count] = static_cast<std::int16_t>(y);
        boundary.x[boundary.count] = static_cast<std::int16_t>(x);
        for (int c = 0; c < kChannels; ++c) boundary.sum[c][boundary.count] = sum[c];
        ++boundary.count;
      }
    }
  }
  return largest;
}

void set_up_right_side(const Slot& slot, int c) {
  const blend_solve::Channel& channel = slot.channel[c];
  const Boundary& boundary = slot.boundary;
  blend_solve::clear_sides(slot.grid, channel);
  for (std::int64_t i = 0; i < boundary.count; ++i)
    blend_solve::add_to_side(slot.grid, channel, boundary.x[i], boundary.y[i], boundary.sum[c][i]);
}

// ---- finished rows

// Lays the three channels of a solved row out as source is: interleaved.
void interleave_row(const Slot& slot, std::int64_t y, float* row) {
  const Level& level = slot.grid.level[0];
  const Span span = level.span[y];
  const std::int64_t at = y * level.shape.stride, s = y & 1;
  for (std::int64_t i = span.begin; i < span.end; i += kLanes) {
    VecFloat low[kChannels], high[kChannels];
    for (int c = 0; c < kChannels; ++c) {
      const VecFloat red = blend_solve::solved_red(slot.grid, slot.channel[c], y, i);
      const VecFloat black = load(slot.channel[c].solution + at + i);
      zip(s == 0 ? red : black, s == 0 ? black : red, low[c], high[c]);
    }
    store_triples(row + 6 * i, low);
    store_triples(row + 6 * i + 3 * kLanes, high);
  }
}

// In blocks of a fixed length, which the compiler packs to bytes better than single vectors.
template <bool kMoved>
FF_INLINE void finish_run(const float* FF_RESTRICT source, const float* FF_RESTRICT h, std::uint8_t* FF_RESTRICT image,
                          std::int64_t count) {
  constexpr std::int64_t kBlock = 32;
  const auto finish = [&](std::int64_t i) { image[i] = finished_pixel(kMoved ? source[i] + h[i] : source[i]); };
  std::int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock)
    for (std::int64_t k = 0; k < kBlock; ++k) finish(i + k);
  for (; i < count; ++i) finish(i);
}

// `h` holds the row's solution from the box's left edge on, or is null where it is zero.
void finish_row(const Frame& frame, const Box& box, std::int64_t y, const float* h) {
  const std::int64_t first = (box.y0 + y) * frame.plan->width + box.x0, width = box.width();
  const std::uint8_t* mask = frame.mask + first;
  for (std::int64_t x = 0; x < width;) {
    x += first_nonzero(mask + x, width - x);
    if (x == width) return;
    const void* zero = std::memchr(mask + x, 0, static_cast<std::size_t>(width - x));
    const std::int64_t end = zero == nullptr ? width : static_cast<const std::uint8_t*>(zero) - mask;
    const std::int64_t at = (first + x) * kChannels, count = (end - x) * kChannels;
    const float* source = frame.source + at;
    std::uint8_t* image = frame.image + at;
    if (h != nullptr) {
      finish_run<true>(source, h + x * kChannels, image, count);
    } else {
      finish_run<false>(source, h, image, count);
    }
    if (frame.exact != nullptr)
      for (std::int64_t i = 0; i < count; ++i)
        frame.exact[at + i] = source[i] + (h == nullptr ? 0.0f : h[x * kChannels + i]);
    x = end;
  }
}

void copy_photo(const Frame& frame) {
  const std::size_t bytes = static_cast<std::size_t>(frame.plan->height * frame.plan->width * kChannels);
  if (frame.image != frame.photo) std::memcpy(frame.image, frame.photo, bytes);
  if (frame.exact != nullptr)
    for (std::size_t i = 0; i < bytes; ++i) frame.exact[i] = static_cast<float>(frame.photo[i]);
}

// ---- frames

void blend_frame(const Frame& frame, unsigned char* workspace, int threads) {
  const Plan& plan = *frame.plan;
  copy_photo(frame);
  const Box box = find_box(frame.mask, plan.height, plan.width);
  if (box.empty()) return;
  Slot slot;
  Arena arena(workspace);
  take_slot(box, slot, arena);
  set_up_bytes(slot.grid, frame.mask, plan.height, plan.width);
  const bool moved = gather_boundary(frame, slot, slot.boundary) >= frame.tolerance;
  if (moved) {
    set_up_finest(slot.grid);
    set_up_coarse(slot.grid);
    parallel_for(kChannels, threads, [&](std::int64_t c) {
      set_up_right_side(slot, static_cast<int>(c));
      blend_solve::solve(slot.grid, slot.channel[c], frame.tolerance);
    });
  }
  parallel_for(row_tasks(box), threads, [&](std::int64_t task) {
    float* h = slot.rows + task * slot.row_stride;
    for (std::int64_t y = task * kRowsPerTask; y < min_of(box.height(), (task + 1) * kRowsPerTask); ++y) {
      if (moved) interleave_row(slot, y, h);
      finish_row(frame, box, y, moved ? h : nullptr);
    }
  });
}

}  // namespace

std::int64_t workspace_bytes(const Blend& op) {
  const Plan plan = make_plan(op);
  return plan.slots * plan.slot_bytes;
}

Status run(const Blend& op) {
  const Plan plan = make_plan(op);
  if (plan.height == 0 || plan.width == 0) return Status::kOk;
  const std::int64_t shared = plan.slots > 1 ? plan.frames / plan.slots * plan.slots : 0;
  parallel_for(plan.slots > 1 ? plan.slots : 0, op.threads, [&](std::int64_t slot) {
    for (std::int64_t f = slot; f < shared; f += plan.slots)
      blend_frame(frame_at(op, plan, f), op.workspace.data + slot * plan.slot_bytes, 1);
  });
  for (std::int64_t f = shared; f < plan.frames; ++f) blend_frame(frame_at(op, plan, f), op.workspace.data, op.threads);
  return Status::kOk;
}

}  // namespace FF_ISA
}  // namespace fastface
