// The ops on every instruction set of this machine and in the emulation of the devices' schedules, for AddressSanitizer
// and UBSan to watch. Arrays stand in allocations of exactly their size, so that one element too far is an error. `make
// sanitize` builds and runs this, and once more with FF_WATCHED: the emulation alone, with every access compared with those
// of other threads (core/watch.h).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "core/parallel.h"
#include "core/runtime.h"
#include "core/watch.h"
#include "registry.h"
#if defined(FF_WATCHED)
#include "faulty_kernels.h"
#endif

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

namespace fastface {
namespace {

template <class T>
View<T> view_of(T* data, std::int64_t a, std::int64_t b = 0, std::int64_t c = 0, std::int64_t d = 0) {
  return {data, {a, b, c, d}};
}

// A table of ops: an instruction set's, or the emulated device's.
struct Place {
  const OpTable* host;
  const DeviceTable* device;
};

// Runs on memory of exactly the size asked for, which holds NaN all over.
template <class Op, class Run>
Status with_workspace(Op& op, std::int64_t bytes, Run run) {
  std::vector<unsigned char> memory(static_cast<std::size_t>(bytes + kWorkspaceAlignment), 0xff);
  const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
  op.workspace = {memory.data() + (kWorkspaceAlignment - at % kWorkspaceAlignment) % kWorkspaceAlignment, bytes};
#if defined(FF_WATCHED)
  watch::undefined(op.workspace.data, static_cast<std::size_t>(bytes));
#endif
  const Status status = run(op);
#if defined(FF_WATCHED)
  watch::defined(memory.data(), memory.size());
  CHECK(watch::problems() == 0);
#endif
  return status;
}

// The outputs of an op, before and after: nothing is in them, then something everywhere.
struct Outputs {
#if defined(FF_WATCHED)
  std::vector<std::pair<const void*, std::size_t>> ranges;
  template <class... Anything>
  void input(Anything&&...) {}
  template <class T>
  void output(const char*, View<T>& view, const char* shape) {
    std::int64_t count = 1, axis = 0;
    for (const char* at = shape; *at != '\0'; ++at)
      if (*at != ' ') count *= view.shape[axis++];
    if (view.data != nullptr) ranges.push_back({view.data, static_cast<std::size_t>(count) * sizeof(T)});
  }
  template <class T>
  void optional_output(const char* name, View<T>& view, const char* shape) {
    output(name, view, shape);
  }
  template <class... Anything>
  void attribute(Anything&&...) {}
  void workspace(WorkspaceView&) {}

  template <class Op>
  explicit Outputs(Op& op) {
    op.describe(*this);
    for (const auto& [at, bytes] : ranges) watch::undefined(at, bytes);
  }
  void check(Status status) const {
    for (const auto& [at, bytes] : ranges) {
      CHECK(status != Status::kOk || watch::all_defined(at, bytes));
      watch::defined(at, bytes);
    }
  }
#else
  template <class Op>
  explicit Outputs(Op&) {}
  void check(Status) const {}
#endif
};

template <class Op>
Status run_on(const DeviceTable& table, Op& op) {
  const DeviceEntry<Op>& entry = entry_of<Op>(table);
  return with_workspace(op, entry.workspace_bytes(op), [&](const Op& ready) { return entry.run(ready, nullptr); });
}

template <class Op>
Status run_op(Place place, Op& op) {
  if (place.host == nullptr) {
    const Outputs outputs(op);
    const Status status = run_on(*place.device, op);
    outputs.check(status);
    return status;
  }
  const Entry<Op>& entry = entry_of<Op>(*place.host);
  return with_workspace(op, entry.workspace_bytes(op), entry.run);
}

// Once more, by other threads in another order: nothing may hang on it.
template <class Op>
Status run_again(Place place, Op& op) {
  op.threads = 3;
  set_emulated_order(5);
  const Status status = run_op(place, op);
  set_emulated_order(0);
  return status;
}

std::mt19937 generator(1);

float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator); }
std::int64_t integer(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
}

std::vector<float> uniform_floats(std::int64_t count, float low, float high) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = uniform(low, high);
  return values;
}

void test_parallel() {
  for (int threads : {1, 2, 3, 8}) {
    for (std::int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
      parallel_for(count, threads, [&](std::int64_t i) { visits[static_cast<std::size_t>(i)].fetch_add(1); });
      for (const std::atomic<int>& v : visits) CHECK(v.load() == 1);
    }
  }
  // From several threads at once, and from inside a task.
  std::atomic<int> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round)
        parallel_for(5, 2, [&](std::int64_t) { parallel_for(2, 2, [&](std::int64_t) { total.fetch_add(1); }); });
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(total.load() == 4 * 200 * 10);
}

void test_host_threads() {
  const HostThreads::Run on_threads = [](void*, std::int64_t strands, TaskFunction strand, void* argument) noexcept {
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < strands; ++i) threads.emplace_back([=] { strand(argument, i); });
    for (std::thread& thread : threads) thread.join();
  };
  const HostThreads host(on_threads, nullptr);
  for (std::int64_t count : {0, 1, 2, 7, 1000}) {
    std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
    parallel_for(count, 3, [&](std::int64_t i) { visits[static_cast<std::size_t>(i)].fetch_add(1); });
    for (const std::atomic<int>& v : visits) CHECK(v.load() == 1);
  }
}

void test_deform(Place place) {
  for (std::int64_t vertices : {0, 1, 63, 64, 65, 200}) {
    for (std::int64_t frames : {0, 1, 2, 3, 4, 5}) {
      const std::int64_t modes = integer(0, 6), blocks = (vertices + kDeformBlock - 1) / kDeformBlock;
      const std::int64_t cameras = integer(0, 1) == 0 ? 1 : frames;
      const std::vector<float> neutral = uniform_floats(vertices * 3, -90, 90);
      const std::vector<float> basis = uniform_floats(blocks * modes * 3 * kDeformBlock, -2, 2);
      const std::vector<std::uint8_t> moves(static_cast<std::size_t>(blocks * modes), 1);
      const std::vector<float> coefficients = uniform_floats(frames * modes, -1, 1);
      const std::vector<float> camera = uniform_floats(cameras * 3, 100, 900);
      std::vector<float> positions(static_cast<std::size_t>(frames * vertices * 3)), screen(positions.size());
      Deform op;
      op.neutral = view_of(neutral.data(), vertices, 3);
      op.basis.data = basis.data();
      op.basis.shape[0] = blocks;
      op.basis.shape[1] = modes;
      op.moves = view_of(moves.data(), blocks, modes);
      op.coefficients = view_of(coefficients.data(), frames, modes);
      op.camera = view_of(camera.data(), cameras, 3);
      op.positions = view_of(positions.data(), frames, vertices, 3);
      op.screen = view_of(screen.data(), frames, vertices, 3);
      op.threads = static_cast<int>(integer(1, 3));
      CHECK(run_op(place, op) == Status::kOk);
      for (std::int64_t at = 0; at < frames * vertices; ++at) {
        const std::int64_t b = at / vertices, v = at % vertices;
        for (std::int64_t c = 0; c < 3; ++c) {
          float wanted = neutral[static_cast<std::size_t>(v * 3 + c)];
          for (std::int64_t k = 0; k < modes; ++k)
            wanted += coefficients[static_cast<std::size_t>(b * modes + k)] *
                      basis[static_cast<std::size_t>(((v / 64 * modes + k) * 3 + c) * 64 + v % 64)];
          CHECK(std::fabs(positions[static_cast<std::size_t>(at * 3 + c)] - wanted) < 1e-3f);
        }
        CHECK(std::isfinite(screen[static_cast<std::size_t>(at * 3)]));
      }
    }
  }
}

float hostile_coordinate() {
  constexpr float kOdd[] = {0.0f,
                            0.5f,
                            16.5f,
                            -1e9f,
                            3e38f,
                            1e13f,
                            std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()};
  return integer(0, 9) == 0 ? kOdd[integer(0, 7)] : uniform(-40, 90);
}

void test_rasterize(Place place) {
  for (int round = 0; round < 60; ++round) {
    const std::int64_t frames = integer(0, 3), vertices = integer(1, 60), triangles = integer(0, 600);
    const std::int64_t height = integer(0, 50), width = integer(0, 50);
    std::vector<float> screen(static_cast<std::size_t>(frames * vertices * 3));
    for (float& v : screen) v = hostile_coordinate();
    std::vector<std::int32_t> triangle(static_cast<std::size_t>(triangles * 3));
    for (std::int32_t& v : triangle) v = static_cast<std::int32_t>(integer(0, vertices - 1));
    const std::size_t pixels = static_cast<std::size_t>(frames * height * width);
    std::vector<std::int32_t> id(pixels), again(pixels);
    std::vector<float> bary(2 * pixels), depth(pixels);
    Rasterize op;
    op.screen = view_of<const float>(screen.data(), frames, vertices, 3);
    op.triangles = view_of<const std::int32_t>(triangle.data(), triangles, 3);
    op.triangle_id = view_of(id.data(), frames, height, width);
    op.bary = view_of(bary.data(), frames, height, width, 2);
    if (round % 2 == 0) op.depth = view_of(depth.data(), frames, height, width);
    op.cull_backfaces = round % 3 == 0 ? 1 : 0;
    op.threads = 1;
    CHECK(run_op(place, op) == Status::kOk);
    op.triangle_id.data = again.data();
    CHECK(run_again(place, op) == Status::kOk);
    CHECK(id == again);
    for (std::size_t p = 0; p < pixels; ++p) {
      CHECK(id[p] >= -1 && id[p] < triangles);
      CHECK(bary[2 * p] >= 0.0f && bary[2 * p + 1] >= 0.0f && bary[2 * p] + bary[2 * p + 1] <= 1.0001f);
    }
    if (triangles > 0 && frames > 0) {
      triangle[static_cast<std::size_t>(integer(0, triangles * 3 - 1))] =
          integer(0, 1) == 0 ? -1 : static_cast<std::int32_t>(vertices);
      // A device has nobody to tell and drops the triangle.
      const Status wanted = place.host != nullptr ? Status::kTriangleIndexOutOfRange : Status::kOk;
      CHECK(run_op(place, op) == wanted);
    }
  }
}

void test_blend(Place place) {
  for (int round = 0; round < 80; ++round) {
    const std::int64_t frames = integer(0, 3), height = integer(0, 45), width = integer(0, 45);
    const bool one_photo = integer(0, 1) == 0;
    const std::size_t pixels = static_cast<std::size_t>(frames * height * width);
    std::vector<std::uint8_t> photo(static_cast<std::size_t>((one_photo ? 1 : frames) * height * width * 3));
    for (std::uint8_t& v : photo) v = static_cast<std::uint8_t>(integer(0, 255));
    std::vector<float> source = uniform_floats(static_cast<std::int64_t>(3 * pixels), -50, 300);
    if (round % 5 == 0)
      for (std::size_t i = 0; i < source.size(); i += 13) source[i] = hostile_coordinate();
    std::vector<std::uint8_t> mask(pixels), image(3 * pixels), again(3 * pixels);
    const std::int64_t density = integer(0, 100);
    for (std::uint8_t& v : mask) v = integer(0, 99) < density ? static_cast<std::uint8_t>(integer(1, 255)) : 0;
    std::vector<float> exact(3 * pixels);
    Blend op;
    op.photo = view_of<const std::uint8_t>(photo.data(), one_photo ? 1 : frames, height, width, 3);
    op.source = view_of<const float>(source.data(), frames, height, width, 3);
    op.mask = view_of<const std::uint8_t>(mask.data(), frames, height, width);
    op.image = view_of(image.data(), frames, height, width, 3);
    if (round % 2 == 0) op.exact = view_of(exact.data(), frames, height, width, 3);
    CHECK(run_op(place, op) == Status::kOk);
    op.image.data = again.data();
    CHECK(run_again(place, op) == Status::kOk);
    CHECK(image == again);
    const std::size_t frame = static_cast<std::size_t>(height * width * 3);
    for (std::size_t p = 0; p < 3 * pixels; ++p)
      if (mask[p / 3] == 0) CHECK(image[p] == photo[one_photo ? p % frame : p]);
  }
}

// Fans of some vertices over some faces, in the form that prepare_shading gives.
struct FanList {
  std::vector<std::int32_t> vertex, start, fans;
  FanList(std::int64_t blocks, std::int64_t vertices, std::int64_t faces) {
    start.push_back(0);
    // No vertex twice, but for the last.
    const std::int64_t skipped = integer(0, vertices - 1);
    for (std::int64_t i = 0; i < blocks * kShadeBlock; ++i) {
      vertex.push_back(static_cast<std::int32_t>((skipped + std::min(i, vertices - 1)) % vertices));
      for (std::int64_t n = faces > 0 ? integer(0, 5) : 0; n > 0; --n)
        fans.push_back(static_cast<std::int32_t>(integer(0, faces - 1)));
      start.push_back(static_cast<std::int32_t>(fans.size()));
    }
  }
};

std::vector<std::uint8_t> random_bytes(std::int64_t count, std::int64_t high = 255) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count));
  for (std::uint8_t& v : bytes) v = static_cast<std::uint8_t>(integer(0, high));
  return bytes;
}

std::vector<std::int32_t> random_indices(std::int64_t count, std::int64_t low, std::int64_t high) {
  std::vector<std::int32_t> indices(static_cast<std::size_t>(count));
  for (std::int32_t& v : indices) v = static_cast<std::int32_t>(integer(low, high));
  return indices;
}

std::vector<float> hostile_floats(std::int64_t count, float low, float high, bool hostile) {
  std::vector<float> values = uniform_floats(count, low, high);
  if (hostile)
    for (float& v : values) v = integer(0, 6) == 0 ? hostile_coordinate() : v;
  return values;
}

// Whole frames of the face that a test of shade made up.
void test_render(const OpTable& host, const Shade& face, bool hostile) {
  const Entry<Render>& entry = entry_of<Render>(host);
  const std::int64_t frames = integer(0, 5), vertices = face.rest_px.shape[0], modes = integer(1, 4);
  const std::int64_t height = face.photo_rgb.shape[0], width = face.photo_rgb.shape[1];
  const std::int64_t top = integer(0, 3), left = integer(0, 3), rows = top + height + integer(0, 2);
  const std::int64_t columns = left + width + integer(0, 2), blocks = (vertices + kDeformBlock - 1) / kDeformBlock;
  std::vector<float> neutral = hostile_floats(vertices * 3, -20, 20, hostile);
  for (std::size_t i = 2; i < neutral.size(); i += 3) neutral[i] += 60.0f;
  const std::vector<float> basis = uniform_floats(blocks * modes * 3 * kDeformBlock, -9, 9);
  const std::vector<std::uint8_t> moves = random_bytes(blocks * modes, 1);
  std::vector<float> coefficients = uniform_floats(frames * modes, -1, 1);
  for (std::int64_t k = 0; k < (frames > 0 ? modes : 0); ++k) coefficients[static_cast<std::size_t>(k)] = 0.0f;
  const std::vector<float> camera = {50.0f, static_cast<float>(width) / 2, static_cast<float>(height) / 2};
  const std::int64_t controls_count = face.shift_px.shape[0] + 3 + face.folds.shape[0];
  const std::vector<float> controls = hostile_floats(frames * controls_count, -0.5f, 1, hostile);
  const std::vector<float> lip_gap = uniform_floats(face.lip_rim.shape[1], 0, 3);
  const std::vector<std::int32_t> eye = random_indices(integer(0, 9), 0, vertices - 1);
  const std::vector<std::uint8_t> photo = random_bytes(rows * columns * 3);
  const std::size_t pixels = static_cast<std::size_t>(frames * rows * columns);
  std::vector<std::uint8_t> image(3 * pixels, 1), again(3 * pixels, 2), mask(pixels, 3), mask_again(pixels, 4);
  Render op;
  op.neutral = view_of<const float>(neutral.data(), vertices, 3);
  op.basis = {basis.data(), {blocks, modes, 3, kDeformBlock}, Dtype::kFloat32};
  op.moves = view_of(moves.data(), blocks, modes);
  op.coefficients = view_of<const float>(coefficients.data(), frames, modes);
  op.camera = view_of(camera.data(), 1, 3);
  op.controls = view_of(controls.data(), frames, controls_count);
  op.face = face;
  op.left = op.right = view_of(eye.data(), static_cast<std::int64_t>(eye.size()));
  op.lip_gap = view_of(lip_gap.data(), face.lip_rim.shape[1]);
  op.photo = view_of(photo.data(), rows, columns, 3);
  op.image = view_of(image.data(), frames, rows, columns, 3);
  op.mask = view_of(mask.data(), frames, rows, columns);
  op.top = static_cast<int>(top);
  op.left_edge = static_cast<int>(left);
  CHECK(with_workspace(op, entry.workspace_bytes(op), entry.run) == Status::kOk);
  op.image.data = again.data();
  op.mask.data = mask_again.data();
  op.threads = 3;
  CHECK(with_workspace(op, entry.workspace_bytes(op), entry.run) == Status::kOk);
  CHECK(image == again);
  CHECK(mask == mask_again);
  for (std::size_t i = 0; i < 3 * pixels; ++i) {
    CHECK(mask[i / 3] <= 1);
    if (mask[i / 3] == 0) CHECK(image[i] == photo[i % photo.size()]);
  }
  for (std::int64_t i = 0; frames > 0 && i < rows * columns; ++i) CHECK(mask[static_cast<std::size_t>(i)] == 0);
  op.top = static_cast<int>(rows);
  CHECK(with_workspace(op, entry.workspace_bytes(op), entry.run) == Status::kPreparedOtherwise);
}

void test_shade(Place place) {
  for (int round = 0; round < 60; ++round) {
    const bool hostile = round % 3 == 0;
    const std::int64_t frames = integer(0, 3), vertices = integer(1, 90), triangles = integer(0, 80);
    const std::int64_t height = integer(1, 30), width = integer(1, round % 4 == 0 ? 300 : 30);
    const std::int64_t faces = integer(0, 20), shifts = integer(0, 2), folds = integer(0, 3), rims = integer(2, 6);
    const std::int64_t rows = height + 2 * kShadeBorder, columns = width + 2 * kShadeBorder;
    const std::int64_t pixels = frames * height * width;
    const FanList lit(integer(0, 3), vertices, faces), painted(integer(0, 2), vertices, faces);
    const std::int64_t lit_count = static_cast<std::int64_t>(lit.vertex.size());
    const std::int64_t painted_count = static_cast<std::int64_t>(painted.vertex.size());
    const std::vector<float> positions = hostile_floats(frames * vertices * 3, -90, 90, hostile);
    const std::vector<float> screen = hostile_floats(frames * vertices * 3, -5, 40, hostile);
    std::vector<std::int32_t> id = random_indices(pixels, -1, triangles - 1);
    if (hostile)
      for (std::int32_t& v : id)
        if (integer(0, 5) == 0) v = static_cast<std::int32_t>(integer(INT32_MIN, INT32_MAX));
    const std::vector<float> bary = hostile_floats(pixels * 2, 0, 0.5f, hostile);
    const std::int64_t controls_count = shifts + 3 + folds;
    const std::vector<float> controls = hostile_floats(frames * controls_count, -0.5f, 1, hostile);
    const std::vector<std::int32_t> triangle = random_indices(triangles * 3, 0, vertices - 1);
    const std::vector<std::uint8_t> layer = random_bytes(triangles, 3);
    const std::vector<float> rest = uniform_floats(vertices * 2, -5, 40);
    const std::vector<float> shift = uniform_floats(shifts * vertices * 2, -3, 3);
    const std::vector<std::int32_t> face = random_indices(faces * 3, 0, vertices - 1);
    const std::vector<float> relief = uniform_floats(lit_count, 0, 1), rest_log = uniform_floats(lit_count, -1, 1);
    const std::vector<float> paint = uniform_floats(painted_count * 3, 0, 1), light = uniform_floats(9, -1, 1);
    const std::vector<std::int32_t> rim = random_indices(2 * rims, 0, vertices - 1);
    const std::vector<std::uint8_t> photo_rgb = random_bytes(height * width * 3);
    const std::int64_t image_bytes = (rows - 1) * columns * 8;
    const std::vector<std::uint8_t> photo = random_bytes(image_bytes), eyes = random_bytes(image_bytes);
    const std::vector<float> fold = uniform_floats(folds * rows * columns, -0.3f, 0.3f);
    std::vector<std::int32_t> box;
    for (std::int64_t d = 0; d < folds; ++d) {
      const std::int64_t top = integer(0, rows - 1), left = integer(0, columns - 1);
      for (const std::int64_t edge : {top, left, integer(top, rows), integer(left, columns)})
        box.push_back(static_cast<std::int32_t>(edge));
    }
    const std::int64_t block_rows = (rows + kShadeFoldBlock - 1) / kShadeFoldBlock;
    const std::int64_t block_columns = (columns + kShadeFoldBlock - 1) / kShadeFoldBlock;
    const std::vector<std::uint8_t> block = random_bytes(folds * block_rows * block_columns, 2);
    const std::size_t count = static_cast<std::size_t>(pixels);
    std::vector<float> source(3 * count), again(3 * count);
    std::vector<std::uint8_t> mask(count, 7), mask_again(count, 7);
    Shade op;
    op.positions = view_of(positions.data(), frames, vertices, 3);
    op.screen = view_of(screen.data(), frames, vertices, 3);
    op.triangle_id = view_of<const std::int32_t>(id.data(), frames, height, width);
    op.bary = view_of(bary.data(), frames, height, width, 2);
    op.controls = view_of(controls.data(), frames, controls_count);
    op.triangles = view_of(triangle.data(), triangles, 3);
    op.layer = view_of(layer.data(), triangles);
    op.rest_px = view_of(rest.data(), vertices, 2);
    op.shift_px = view_of(shift.data(), shifts, vertices, 2);
    op.faces = view_of(face.data(), faces, 3);
    op.lit = view_of(lit.vertex.data(), lit_count);
    op.lit_fan_start = view_of(lit.start.data(), lit_count + 1);
    op.lit_fans = view_of(lit.fans.data(), static_cast<std::int64_t>(lit.fans.size()));
    op.lit_relief = view_of(relief.data(), lit_count);
    op.lit_rest_log = view_of(rest_log.data(), lit_count);
    op.painted = view_of(painted.vertex.data(), painted_count);
    op.painted_fan_start = view_of(painted.start.data(), painted_count + 1);
    op.painted_fans = view_of(painted.fans.data(), static_cast<std::int64_t>(painted.fans.size()));
    op.paint_linear = view_of(paint.data(), painted_count, 3);
    op.lip_rim = view_of(rim.data(), 2, rims);
    op.light = view_of(light.data(), 9);
    op.photo_rgb = view_of(photo_rgb.data(), height, width, 3);
    op.photo = view_of(photo.data(), rows - 1, columns, 8);
    op.eyes = view_of(eyes.data(), rows - 1, columns, 8);
    op.folds = view_of(fold.data(), folds, rows, columns);
    op.fold_box = view_of<const std::int32_t>(box.data(), folds, 4);
    op.fold_block = view_of(block.data(), folds, block_rows, block_columns);
    op.source = view_of(source.data(), frames, height, width, 3);
    op.mask = view_of(mask.data(), frames, height, width);
    op.lit_faces = static_cast<int>(faces);
    CHECK(run_op(place, op) == Status::kOk);
    op.source.data = again.data();
    op.mask.data = mask_again.data();
    op.threads = 3;
    CHECK(run_op(place, op) == Status::kOk);
    CHECK(mask == mask_again);
    const std::size_t frame = static_cast<std::size_t>(height * width * 3);
    for (std::size_t i = 0; i < 3 * count; ++i) {
      CHECK(mask[i / 3] <= 1);
      if (mask[i / 3] == 0) CHECK(source[i] == static_cast<float>(photo_rgb[i % frame]));
      CHECK(source[i] == again[i] || (std::isnan(source[i]) && std::isnan(again[i])));
    }
    if (place.host != nullptr) test_render(*place.host, op, hostile);
    op.lit_faces = static_cast<int>(faces) + 1;
    CHECK(run_op(place, op) == Status::kPreparedOtherwise);
  }
}

void test_frame_steps(const DeviceTable& table) {
  for (int round = 0; round < 30; ++round) {
    const std::int64_t frames = integer(0, 3), modes = integer(0, 70), controls = integer(3, 20);
    const std::int64_t vertices = integer(1, 50), height = integer(1, 20), width = integer(1, 20);
    const std::vector<float> coefficients = hostile_floats(frames * modes, -1, 1, round % 2 == 0);
    const std::vector<float> own = uniform_floats(modes, -1, 1), weights = uniform_floats(modes * controls, 0, 1);
    std::vector<float> most = uniform_floats(controls, 0, 1);
    most[0] = most[1] = most[2] = -1.0f;
    std::vector<float> deltas(static_cast<std::size_t>(frames * modes));
    std::vector<float> control(static_cast<std::size_t>(frames * controls));
    std::vector<std::uint8_t> moves(static_cast<std::size_t>(frames));
    Drive drive;
    drive.coefficients = view_of(coefficients.data(), frames, modes);
    drive.own = view_of(own.data(), modes);
    drive.weights = view_of(weights.data(), modes, controls);
    drive.most = view_of<const float>(most.data(), controls);
    drive.deltas = view_of(deltas.data(), frames, modes);
    drive.controls = view_of(control.data(), frames, controls);
    drive.moves = view_of(moves.data(), frames);
    CHECK(run_on(table, drive) == Status::kOk);
    for (const float v : deltas) CHECK(std::fabs(v) <= 3.0f);

    const std::vector<float> screen = hostile_floats(frames * vertices * 3, 0, 20, round % 2 == 0);
    const std::int64_t left = integer(0, 40), right = integer(0, 40), rims = integer(2, 9);
    const std::vector<std::int32_t> left_rows = random_indices(left, 0, vertices - 1);
    const std::vector<std::int32_t> right_rows = random_indices(right, 0, vertices - 1);
    const std::vector<std::int32_t> rim = random_indices(2 * rims, 0, vertices - 1);
    const std::vector<float> left_rest = uniform_floats(2 * left, 0, 20), right_rest = uniform_floats(2 * right, 0, 20);
    const std::vector<float> gap = uniform_floats(rims, 0, 5);
    Part part;
    part.screen = view_of(screen.data(), frames, vertices, 3);
    part.left = view_of(left_rows.data(), left);
    part.left_rest = view_of(left_rest.data(), left, 2);
    part.right = view_of(right_rows.data(), right);
    part.right_rest = view_of(right_rest.data(), right, 2);
    part.lip_rim = view_of(rim.data(), 2, rims);
    part.lip_gap = view_of(gap.data(), rims);
    part.controls = view_of(control.data(), frames, controls);
    CHECK(run_on(table, part) == Status::kOk);
    for (std::int64_t b = 0; b < frames; ++b)
      for (std::int64_t c = 0; c < 3; ++c) {
        const float share = control[static_cast<std::size_t>(b * controls + c)];
        CHECK(share >= 0.0f && share <= 1.0f);
      }
    part.first = static_cast<int>(controls) - 2;
    CHECK(run_on(table, part) == Status::kPreparedOtherwise);

    const std::int64_t led = integer(0, vertices), border = integer(0, 9);
    std::vector<float> turns = hostile_floats(frames * 13, -1, 1, round % 2 == 0);
    for (std::int64_t b = 0; b < frames; ++b) turns[static_cast<std::size_t>(13 * b + 12)] = b % 2 == 0 ? 1.0f : 0.0f;
    std::vector<std::int32_t> row_of(static_cast<std::size_t>(vertices), -1), rows;
    for (std::int64_t r = 0; r < led; ++r) {
      row_of[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(r);
      rows.push_back(static_cast<std::int32_t>(r));
    }
    const std::vector<std::int32_t> borders = random_indices(border, 0, vertices - 1);
    const std::vector<float> camera = {900, 10, 10}, rows_rest = uniform_floats(2 * led, 0, 20);
    const std::vector<float> share = uniform_floats(led, 0, 1), border_rest = uniform_floats(2 * border, 0, 20);
    const std::vector<float> lead = uniform_floats(led * border, 0, 1), body = uniform_floats(3 * led, 1, 9);
    std::vector<float> positions = screen, turned = screen;
    Turn turn;
    turn.turns = view_of<const float>(turns.data(), frames, 13);
    turn.camera = view_of(camera.data(), 1, 3);
    turn.row_of = view_of<const std::int32_t>(row_of.data(), vertices);
    turn.rows = view_of<const std::int32_t>(rows.data(), led);
    turn.rows_rest = view_of(rows_rest.data(), led, 2);
    turn.share = turn.body_share = view_of(share.data(), led);
    turn.border = view_of(borders.data(), border);
    turn.border_rest = view_of(border_rest.data(), border, 2);
    turn.weights = view_of(lead.data(), led, border);
    turn.body = view_of(body.data(), led, 3);
    turn.positions = view_of(positions.data(), frames, vertices, 3);
    turn.screen = view_of(turned.data(), frames, vertices, 3);
    turn.moves = view_of(moves.data(), frames);
    CHECK(run_on(table, turn) == Status::kOk);
    for (std::int64_t b = 0; b < frames; ++b) {
      const std::size_t at = static_cast<std::size_t>(b * vertices * 3);
      if (b % 2 == 0) {
        CHECK(moves[static_cast<std::size_t>(b)] == 1);
      } else {
        CHECK(std::memcmp(&positions[at], &screen[at], sizeof(float) * static_cast<std::size_t>(3 * vertices)) == 0);
      }
    }

    const std::int64_t tall = height + integer(0, 5), wide = width + integer(0, 5);
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(frames * height * width), 1);
    Settle settle;
    settle.moves = view_of<const std::uint8_t>(moves.data(), frames);
    settle.mask = view_of(mask.data(), frames, height, width);
    CHECK(run_on(table, settle) == Status::kOk);
    const std::vector<std::uint8_t> photo = random_bytes(tall * wide * 3);
    const std::vector<std::uint8_t> window = random_bytes(frames * height * width * 3);
    std::vector<std::uint8_t> image(static_cast<std::size_t>(frames * tall * wide * 3));
    Compose compose;
    compose.photo = view_of(photo.data(), tall, wide, 3);
    compose.window = view_of(window.data(), frames, height, width, 3);
    compose.image = view_of(image.data(), frames, tall, wide, 3);
    compose.top = static_cast<int>(integer(0, tall - height));
    compose.left = static_cast<int>(integer(0, wide - width));
    CHECK(run_on(table, compose) == Status::kOk);
    for (std::int64_t b = 0; b < frames; ++b) {
      const std::size_t at = static_cast<std::size_t>(((b * tall + compose.top) * wide + compose.left) * 3);
      CHECK(image[at] == window[static_cast<std::size_t>(b * height * width * 3)]);
    }
  }
}

// Work that nobody waited for is not done; a graph repeats what was captured.
void test_late_streams() {
  Runtime& device = emulated_runtime();
  set_emulated_lazy(true);
  Stream first = nullptr, second = nullptr;
  CHECK(device.make_stream(first) && device.make_stream(second) && first != second);
  int* at[3];
  for (int*& each : at) CHECK((each = static_cast<int*>(device.allocate(64))) != nullptr);
  const int seven = 7, eight = 8;
  int seen = 0;
  CHECK(device.copy(at[0], &seven, 4, first));
  CHECK(device.copy(&seen, at[0], 4, second) && seen == -1);  // it did not wait
  CHECK(device.follow(second, first));
  CHECK(device.copy(&seen, at[0], 4, second) && seen == 7);
  CHECK(device.begin_capture(first));
  CHECK(!device.wait(first) && !device.follow(first, second));
  CHECK(device.copy(at[1], at[0], 4, first));
  void* graph = device.end_capture(first);
  CHECK(graph != nullptr);
  CHECK(device.copy(at[0], &eight, 4, first) && device.replay(graph, first));
  CHECK(at[1][0] == -1 && device.wait(first) && at[1][0] == 8);
  CHECK(device.begin_capture(first) && device.allocate(64) == nullptr && device.end_capture(first) == nullptr);
  device.drop_graph(graph);
  for (int* each : at) device.release(each);
  device.drop_stream(first);
  device.drop_stream(second);
  set_emulated_lazy(false);
}

}  // namespace
}  // namespace fastface

int main() {
  using namespace fastface;
  test_late_streams();
#if defined(FF_WATCHED)
  CHECK(faults_of_faultless() == 0);
  watch::be_quiet(true);
  for (const Faulty& kernel : faulty_kernels()) {
    if (kernel.problems() == 0) std::printf("not seen: %s\n", kernel.fault);
    CHECK(kernel.problems() > 0);
  }
  watch::be_quiet(false);
#endif
  test_parallel();
  test_host_threads();
  const auto test_ops = [](Place place, const char* name) {
    test_deform(place);
    test_rasterize(place);
    test_shade(place);
    test_blend(place);
    std::printf("%s: passed\n", name);
  };
#if !defined(FF_WATCHED)
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (isa_available(isa)) test_ops({&op_table(isa), nullptr}, isa_name(isa));
  }
#endif
  test_ops({nullptr, &emulated_table()}, "emulated device");
  test_frame_steps(emulated_table());
  return 0;
}
