// Schedule for devices: every pixel holds a key of depth and triangle, and whoever covers it lowers the key, in whatever
// order. A block takes some triangles of one frame, a thread each; those that are large it draws afterwards with all its
// threads. At the end every pixel asks the triangle it is left with where it lies. Compiled without contraction to FMA,
// so that the results are those of a processor, bit for bit.
#include "ops/rasterize.h"

#include "core/launch.h"
#include "core/workspace.h"
#include "ops/rasterize_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace rasterize_device {

__extension__ typedef __int128 Int128;

constexpr std::int32_t kSmallExtent = 64 * kSubpixels;  // edge functions of smaller triangles fit 32 bits
constexpr float kSnapLimit = 536870912.0f;              // 2^29 subpixels: edge functions fit 64 bits
constexpr float kHugeLimit = 281474976710656.0f;        // 2^48 subpixels: they fit 128 bits
constexpr int kAlone = 64;                              // pixels of a box that a thread looks at by itself
constexpr unsigned long long kNobody = ~0ull;

struct Screen {
  const float* vertices;  // of the frame
  const std::int32_t* triangles;
  std::int64_t vertex_count;
  std::int32_t height, width;
  bool cull;
};

FF_DEVICE Screen screen_of(const Rasterize& op, std::int64_t frame) {
  return {op.screen.data + frame * op.screen.shape[1] * 3,
          op.triangles.data,
          op.screen.shape[1],
          static_cast<std::int32_t>(op.triangle_id.shape[1]),
          static_cast<std::int32_t>(op.triangle_id.shape[2]),
          op.cull_backfaces != 0};
}

// Pixels with their centres in a triangle's box, both ends included.
struct PixelBox {
  std::int32_t x0, y0, x1, y1;
  FF_DEVICE bool empty() const { return x0 > x1 || y0 > y1; }
};

template <class I>
FF_DEVICE std::int32_t within(I pixel, std::int32_t low, std::int32_t high) {
  return pixel < low ? low : pixel > high ? high : static_cast<std::int32_t>(pixel);
}

template <class I>
FF_DEVICE PixelBox box_of(const Coverage<I>& c, const Screen& screen) {
  const I low_x = c.x[0] < c.x[1] ? (c.x[0] < c.x[2] ? c.x[0] : c.x[2]) : (c.x[1] < c.x[2] ? c.x[1] : c.x[2]);
  const I low_y = c.y[0] < c.y[1] ? (c.y[0] < c.y[2] ? c.y[0] : c.y[2]) : (c.y[1] < c.y[2] ? c.y[1] : c.y[2]);
  const I high_x = c.x[0] > c.x[1] ? (c.x[0] > c.x[2] ? c.x[0] : c.x[2]) : (c.x[1] > c.x[2] ? c.x[1] : c.x[2]);
  const I high_y = c.y[0] > c.y[1] ? (c.y[0] > c.y[2] ? c.y[0] : c.y[2]) : (c.y[1] > c.y[2] ? c.y[1] : c.y[2]);
  return {within<I>(first_centre(low_x), 0, screen.width), within<I>(first_centre(low_y), 0, screen.height),
          within<I>(last_centre(high_x), -1, screen.width - 1), within<I>(last_centre(high_y), -1, screen.height - 1)};
}

template <class I, class Body>
FF_DEVICE void with_coverage_in(const float (&x)[3], const float (&y)[3], const float (&z)[3], bool cull, Body& body) {
  I wide_x[3], wide_y[3];
  for (int i = 0; i < 3; ++i) {
    wide_x[i] = static_cast<I>(static_cast<std::int64_t>(x[i]));
    wide_y[i] = static_cast<I>(static_cast<std::int64_t>(y[i]));
  }
  const Coverage<I> coverage(wide_x, wide_y, z, cull);
  if (coverage.visible) body(coverage);
}

// Calls body with the triangle's coverage, in the narrowest integers that hold it, unless it cannot be seen.
template <class Body>
FF_DEVICE void with_coverage(const Screen& screen, std::int64_t triangle, Body&& body) {
  float x[3], y[3], z[3], low_x = 0.0f, low_y = 0.0f, high_x = 0.0f, high_y = 0.0f;
  bool usable = true, near = true;
  for (int i = 0; i < 3; ++i) {
    const std::int64_t v = screen.triangles[triangle * 3 + i];
    if (v < 0 || v >= screen.vertex_count) return;
    const float* p = screen.vertices + v * 3;
    x[i] = __builtin_rintf(p[0] * static_cast<float>(kSubpixels));
    y[i] = __builtin_rintf(p[1] * static_cast<float>(kSubpixels));
    z[i] = p[2];
    usable &= __builtin_fabsf(x[i]) <= kHugeLimit && __builtin_fabsf(y[i]) <= kHugeLimit;
    usable &= z[i] > 0.0f && z[i] <= 3.402823466e38f;
    near &= __builtin_fabsf(x[i]) <= kSnapLimit && __builtin_fabsf(y[i]) <= kSnapLimit;
    low_x = i == 0 || x[i] < low_x ? x[i] : low_x;
    low_y = i == 0 || y[i] < low_y ? y[i] : low_y;
    high_x = i == 0 || x[i] > high_x ? x[i] : high_x;
    high_y = i == 0 || y[i] > high_y ? y[i] : high_y;
  }
  if (!usable) return;
  constexpr float kSmall = static_cast<float>(kSmallExtent);
  if (!near) {
    with_coverage_in<Int128>(x, y, z, screen.cull, body);
  } else if (high_x - low_x <= kSmall && high_y - low_y <= kSmall) {
    with_coverage_in<std::int32_t>(x, y, z, screen.cull, body);
  } else {
    with_coverage_in<std::int64_t>(x, y, z, screen.cull, body);
  }
}

template <class I>
FF_DEVICE void draw_pixel(const Coverage<I>& coverage, std::int32_t triangle, std::int32_t column, std::int32_t row,
                          std::int32_t width, unsigned long long* keys) {
  float b1, b2, depth;
  // No depth is nearer than infinity where it is infinite itself, or not a number.
  if (coverage.covers(column, row, b1, b2, depth) && depth < __builtin_inff())
    lower_to(keys + static_cast<std::int64_t>(row) * width + column, depth_key(depth, triangle));
}

struct Draw {
  static constexpr int kThreads = 128, kBlocksPerCore = 5;
  struct Shared {
    int large;
    std::int32_t triangle[kThreads];
  };
  Rasterize op;
  unsigned long long* keys;
  int chunks;

  FF_DEVICE void operator()(const Block& block, Shared& shared) const {
    const std::int64_t frame = block.index / chunks, first = static_cast<std::int64_t>(block.index % chunks) * kThreads;
    const std::int64_t left = op.triangles.shape[0] - first;
    const Screen screen = screen_of(op, frame);
    unsigned long long* image = keys + frame * screen.height * screen.width;
    block.each(1, [&](int) { shared.large = 0; });
    block.each(left < kThreads ? static_cast<int>(left) : kThreads, [&](int i) {
      const std::int32_t triangle = static_cast<std::int32_t>(first + i);
      with_coverage(screen, triangle, [&](const auto& coverage) {
        const PixelBox box = box_of(coverage, screen);
        if (box.empty()) return;
        const std::int64_t across = box.x1 - box.x0 + 1, down = box.y1 - box.y0 + 1;
        if (across * down > kAlone) {
          shared.triangle[count_up(&shared.large)] = triangle;
          return;
        }
        for (std::int32_t row = box.y0; row <= box.y1; ++row)
          for (std::int32_t column = box.x0; column <= box.x1; ++column)
            draw_pixel(coverage, triangle, column, row, screen.width, image);
      });
    });
    for (int k = 0; k < shared.large; ++k) {
      const std::int32_t triangle = shared.triangle[k];
      with_coverage(screen, triangle, [&](const auto& coverage) {
        const PixelBox box = box_of(coverage, screen);
        block.each(box.y1 - box.y0 + 1, box.x1 - box.x0 + 1, [&](int y, int x) {
          draw_pixel(coverage, triangle, box.x0 + x, box.y0 + y, screen.width, image);
        });
      });
    }
  }
};

struct Resolve {
  Rasterize op;
  const unsigned long long* keys;

  FF_DEVICE void operator()(int frame, int pixel) const {
    const int width = static_cast<int>(op.triangle_id.shape[2]);
    const std::int64_t at = frame * op.triangle_id.shape[1] * width + pixel;
    const unsigned long long key = keys[at];
    std::int32_t id = -1;
    float b1 = 0.0f, b2 = 0.0f, depth = __builtin_inff();
    if (key != kNobody) {
      id = static_cast<std::int32_t>(key & 0xffffffffu);
      with_coverage(screen_of(op, frame), id,
                    [&](const auto& coverage) { coverage.covers(pixel % width, pixel / width, b1, b2, depth); });
    }
    op.triangle_id.data[at] = id;
    op.bary.data[2 * at] = b1;
    op.bary.data[2 * at + 1] = b2;
    if (op.depth.data != nullptr) op.depth.data[at] = depth;
  }
};

FF_SCHEDULE std::int64_t pixels_of(const Rasterize& op) {
  return op.triangle_id.shape[0] * op.triangle_id.shape[1] * op.triangle_id.shape[2];
}

}  // namespace rasterize_device

std::int64_t workspace_bytes(const Rasterize& op) {
  Arena arena(nullptr);
  arena.take<unsigned long long>(rasterize_device::pixels_of(op));
  return arena.used();
}

FF_SCHEDULE Status run(const Rasterize& op, Stream stream) {
  using namespace rasterize_device;
  const std::int64_t pixels = pixels_of(op);
  if (pixels == 0) return Status::kOk;
  Arena arena(op.workspace.data);
  auto* keys = arena.take<unsigned long long>(pixels);
  Status status = fill_bytes(stream, keys, 0xff, pixels * static_cast<std::int64_t>(sizeof(*keys)));
  const std::int64_t chunks = (op.triangles.shape[0] + Draw::kThreads - 1) / Draw::kThreads;
  if (status == Status::kOk) status = launch(stream, op.screen.shape[0] * chunks, Draw{op, keys, static_cast<int>(chunks)});
  if (status == Status::kOk)
    status = for_each(stream, op.screen.shape[0], op.triangle_id.shape[1] * op.triangle_id.shape[2], Resolve{op, keys});
  return status;
}

}  // namespace FF_ISA
}  // namespace fastface
