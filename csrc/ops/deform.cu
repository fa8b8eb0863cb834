// Schedule for devices: a block of threads for a block of 64 vertices and some groups of frames; a thread keeps one
// vertex of kFrames frames in registers while the modes stream by. The sum over modes runs in ascending order, so a
// frame's result does not depend on its neighbours in the batch.
#include "ops/deform.h"

#include "core/half.h"
#include "core/launch.h"
#include "ops/deform_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace deform_device {

template <class Real, int kFrames, int kGroups>
struct DeformBlock {
  static constexpr int kThreads = static_cast<int>(kDeformBlock) * kGroups, kBlocksPerCore = kFrames > 1 ? 2 : 4;
  static constexpr int kAhead = kFrames > 1 ? 4 : 8;  // modes whose numbers are on their way together
  struct Shared {};
  Deform op;

  static constexpr std::int64_t kFramesPerBlock = static_cast<std::int64_t>(kFrames) * kGroups;

  FF_DEVICE void operator()(const Block& block, Shared&) const {
    const int blocks = static_cast<int>(op.basis.shape[0]);
    const std::int64_t n = block.index % blocks, first = block.index / blocks * kFramesPerBlock;
    block.each(kThreads, [&](int thread) {
      const int lane = thread % static_cast<int>(kDeformBlock);
      move_vertex(n, lane, first + thread / static_cast<int>(kDeformBlock) * kFrames);
    });
  }

  FF_DEVICE void move_vertex(std::int64_t n, int lane, std::int64_t frame) const {
    const std::int64_t vertices = op.neutral.shape[0], modes = op.coefficients.shape[1];
    const std::int64_t frames = op.coefficients.shape[0], vertex = n * kDeformBlock + lane;
    if (frame >= frames) return;
    const int valid = frames - frame < kFrames ? static_cast<int>(frames - frame) : kFrames;
    const float* neutral = op.neutral.data + (vertex < vertices ? vertex : 0) * 3;
    float sum[kFrames][3];
#pragma unroll
    for (int f = 0; f < kFrames; ++f)
#pragma unroll
      for (int c = 0; c < 3; ++c) sum[f][c] = neutral[c];
    const Real* basis = static_cast<const Real*>(op.basis.data) + n * modes * 3 * kDeformBlock + lane;
    const float* row = op.coefficients.data + frame * modes;
    for (std::int64_t first = 0; first < modes; first += kAhead) {
      float weight[kAhead][kFrames], delta[kAhead][3];
      bool counts[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const std::int64_t k = first + a;
        const bool moves = k < modes && op.moves.data[n * modes + k] != 0;
        counts[a] = false;
#pragma unroll
        for (int f = 0; f < kFrames; ++f) {
          weight[a][f] = moves && f < valid ? row[f * modes + k] : 0.0f;
          counts[a] |= weight[a][f] != 0.0f;  // NaN too
        }
#pragma unroll
        for (int c = 0; c < 3; ++c) delta[a][c] = counts[a] ? real_of(basis[(k * 3 + c) * kDeformBlock]) : 0.0f;
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a)
        if (counts[a])
#pragma unroll
          for (int f = 0; f < kFrames; ++f) add_mode(sum[f], weight[a][f], delta[a]);
    }
    if (vertex >= vertices) return;
#pragma unroll
    for (int f = 0; f < kFrames; ++f)
      if (f < valid) put(sum[f], frame + f, vertex);
  }

  FF_DEVICE void put(const float (&position)[3], std::int64_t frame, std::int64_t vertex) const {
    const float* row = op.camera.data + (op.camera.shape[0] == 1 ? 0 : frame * 3);
    const Pinhole camera{row[0], row[1], row[2]};
    float screen[3];
    project(position, camera, op.near_mm, screen);
    const std::int64_t at = (frame * op.neutral.shape[0] + vertex) * 3;
    for (int c = 0; c < 3; ++c) op.positions.data[at + c] = position[c];
    for (int c = 0; c < 3; ++c) op.screen.data[at + c] = screen[c];
  }
};

template <class Real, int kFrames, int kGroups>
FF_SCHEDULE Status run_blocks(const Deform& op, Stream stream) {
  using Kernel = DeformBlock<Real, kFrames, kGroups>;
  const std::int64_t rounds = (op.coefficients.shape[0] + Kernel::kFramesPerBlock - 1) / Kernel::kFramesPerBlock;
  return launch(stream, op.basis.shape[0] * rounds, Kernel{op});
}

template <class Real>
FF_SCHEDULE Status run_as(const Deform& op, Stream stream) {
  return op.coefficients.shape[0] <= 4 ? run_blocks<Real, 1, 4>(op, stream) : run_blocks<Real, 8, 4>(op, stream);
}

}  // namespace deform_device

std::int64_t workspace_bytes(const Deform&) { return 0; }

FF_SCHEDULE Status run(const Deform& op, Stream stream) {
  using namespace deform_device;
  return op.basis.dtype == Dtype::kFloat16 ? run_as<std::uint16_t>(op, stream) : run_as<float>(op, stream);
}

}  // namespace FF_ISA
}  // namespace fastface
