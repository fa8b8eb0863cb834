// Schedule: vertex tiles over threads; in a tile, blocks of 64 vertices; in a block, groups of up to four frames share
// every load of the basis. The sum over modes runs in ascending order whatever the grouping, so a frame's result does
// not depend on its neighbours in the batch.
#include "ops/deform.h"

#include "core/parallel.h"
#include "core/simd.h"
#include "core/workspace.h"
#include "ops/deform_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace {

constexpr std::int64_t kGroup = 4;
constexpr std::int64_t kBlocksPerTile = 8;

struct Modes {
  std::int64_t count = 0;
  const std::int32_t* index = nullptr;  // (count,) modes that some frame of the group uses, ascending
  const float* weight = nullptr;        // (count, kGroup)
};

struct Plan {
  std::int64_t vertices, modes, frames, groups, blocks;
  std::int64_t* count;  // (groups,)
  std::int32_t* index;  // (groups, modes)
  float* weight;        // (groups, modes, kGroup)
};

Plan make_plan(const Deform& op, Arena& arena) {
  Plan plan;
  plan.vertices = op.neutral.shape[0];
  plan.modes = op.coefficients.shape[1];
  plan.frames = op.coefficients.shape[0];
  plan.blocks = op.basis.shape[0];
  plan.groups = (plan.frames + kGroup - 1) / kGroup;
  plan.count = arena.take<std::int64_t>(plan.groups);
  plan.index = arena.take<std::int32_t>(plan.groups * plan.modes);
  plan.weight = arena.take<float>(plan.groups * plan.modes * kGroup);
  return plan;
}

void gather_modes(const Deform& op, const Plan& plan, std::int64_t group) {
  const std::int64_t first = group * kGroup;
  const std::int64_t frames = plan.frames - first < kGroup ? plan.frames - first : kGroup;
  std::int32_t* index = plan.index + group * plan.modes;
  float* weight = plan.weight + group * plan.modes * kGroup;
  std::int64_t count = 0;
  for (std::int64_t k = 0; k < plan.modes; ++k) {
    bool used = false;
    for (std::int64_t f = 0; f < kGroup; ++f) {
      const float c = f < frames ? op.coefficients.data[(first + f) * plan.modes + k] : 0.0f;
      weight[count * kGroup + f] = c;
      used |= c != 0.0f;
    }
    index[count] = static_cast<std::int32_t>(k);
    count += used ? 1 : 0;
  }
  plan.count[group] = count;
}

template <class Real>
struct Block {
  const Real* basis;          // (K, 3, 64)
  const std::uint8_t* moves;  // (K,)
  const float* neutral;       // (64, 3)
};

FF_INLINE Pinhole camera_of(const Deform& op, std::int64_t frame) {
  const float* row = op.camera.data + (op.camera.shape[0] == 1 ? 0 : frame * 3);
  return {row[0], row[1], row[2]};
}

// Frames x Vectors x 3 accumulators stay in registers while all modes stream by.
template <int Frames, int Vectors, class Real>
FF_INLINE void accumulate(const Block<Real>& block, const Modes& modes, std::int64_t at,
                          VecFloat (&sum)[Frames][Vectors][3]) {
  for (int v = 0; v < Vectors; ++v) {
    VecFloat start[3];
    load_triples(block.neutral + (at + v * kLanes) * 3, start);
    for (int f = 0; f < Frames; ++f)
      for (int c = 0; c < 3; ++c) sum[f][v][c] = start[c];
  }
  for (std::int64_t m = 0; m < modes.count; ++m) {
    const std::int64_t k = modes.index[m];
    if (block.moves[k] == 0) continue;
    const Real* plane = block.basis + k * 3 * kDeformBlock + at;
    const float* weight = modes.weight + m * kGroup;
    for (int v = 0; v < Vectors; ++v) {
      VecFloat delta[3];
      for (int c = 0; c < 3; ++c) delta[c] = load_real(plane + c * kDeformBlock + v * kLanes);
      for (int f = 0; f < Frames; ++f) add_mode(sum[f][v], weight[f], delta);
    }
  }
}

FF_INLINE void copy_floats(const float* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <int Frames, class Real>
void deform_block(const Deform& op, const Plan& plan, const Block<Real>& block, const Modes& modes, std::int64_t vertex,
                  std::int64_t frame) {
  constexpr int kVectors = Frames == 1 ? 4 : Frames == 2 ? 2 : 1;
  const bool whole = vertex + kDeformBlock <= plan.vertices;
  const std::int64_t valid = whole ? kDeformBlock : plan.vertices - vertex;
  for (std::int64_t at = 0; at < valid; at += kVectors * kLanes) {
    VecFloat sum[Frames][kVectors][3];
    accumulate(block, modes, at, sum);
    for (int f = 0; f < Frames; ++f) {
      const Pinhole camera = camera_of(op, frame + f);
      const std::int64_t offset = ((frame + f) * plan.vertices + vertex + at) * 3;
      for (int v = 0; v < kVectors; ++v) {
        VecFloat screen[3];
        project(sum[f][v], camera, op.near_mm, screen);
        float* positions_to = op.positions.data + offset + v * kLanes * 3;
        float* screen_to = op.screen.data + offset + v * kLanes * 3;
        const std::int64_t left = valid - at - v * kLanes;
        if (left >= kLanes) {
          store_triples(positions_to, sum[f][v]);
          store_triples(screen_to, screen);
        } else if (left > 0) {
          float triples[3 * kLanes];
          store_triples(triples, sum[f][v]);
          copy_floats(triples, positions_to, left * 3);
          store_triples(triples, screen);
          copy_floats(triples, screen_to, left * 3);
        }
      }
    }
  }
}

template <class Real>
void deform_tile(const Deform& op, const Plan& plan, std::int64_t tile) {
  const std::int64_t end = (tile + 1) * kBlocksPerTile < plan.blocks ? (tile + 1) * kBlocksPerTile : plan.blocks;
  for (std::int64_t n = tile * kBlocksPerTile; n < end; ++n) {
    const std::int64_t vertex = n * kDeformBlock;
    Block<Real> block;
    block.basis = static_cast<const Real*>(op.basis.data) + n * plan.modes * 3 * kDeformBlock;
    block.moves = op.moves.data + n * plan.modes;
    block.neutral = op.neutral.data + vertex * 3;
    float padded[kDeformBlock * 3];
    if (vertex + kDeformBlock > plan.vertices) {
      const std::int64_t valid = (plan.vertices - vertex) * 3;
      for (std::int64_t i = 0; i < kDeformBlock * 3; ++i) padded[i] = i < valid ? block.neutral[i] : 0.0f;
      block.neutral = padded;
    }
    for (std::int64_t g = 0; g < plan.groups; ++g) {
      const Modes modes{plan.count[g], plan.index + g * plan.modes, plan.weight + g * plan.modes * kGroup};
      const std::int64_t frame = g * kGroup;
      switch (plan.frames - frame) {
        case 1:
          deform_block<1>(op, plan, block, modes, vertex, frame);
          break;
        case 2:
          deform_block<2>(op, plan, block, modes, vertex, frame);
          break;
        case 3:
          deform_block<3>(op, plan, block, modes, vertex, frame);
          break;
        default:
          deform_block<4>(op, plan, block, modes, vertex, frame);
      }
    }
  }
}

}  // namespace

std::int64_t workspace_bytes(const Deform& op) {
  Arena arena(nullptr);
  make_plan(op, arena);
  return arena.used();
}

Status run(const Deform& op) {
  Arena arena(op.workspace.data);
  const Plan plan = make_plan(op, arena);
  for (std::int64_t g = 0; g < plan.groups; ++g) gather_modes(op, plan, g);
  const std::int64_t tiles = (plan.blocks + kBlocksPerTile - 1) / kBlocksPerTile;
  if (op.basis.dtype == Dtype::kFloat16) {
    parallel_for(tiles, op.threads, [&](std::int64_t tile) { deform_tile<std::uint16_t>(op, plan, tile); });
  } else {
    parallel_for(tiles, op.threads, [&](std::int64_t tile) { deform_tile<float>(op, plan, tile); });
  }
  return Status::kOk;
}

}  // namespace FF_ISA
}  // namespace fastface
