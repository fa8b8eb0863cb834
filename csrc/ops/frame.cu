#include "ops/frame.h"

#include "core/launch.h"
#include "core/workspace.h"

namespace fastface {
inline namespace FF_ISA {
namespace frame_device {

struct Most {
  float value;
  FF_DEVICE void add(const Most& other) { value = other.value > value ? other.value : value; }
};

FF_DEVICE float clipped(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

FF_DEVICE float smooth(float x) {
  const float t = clipped(x);
  return t * t * (3.0f - 2.0f * t);
}

FF_DEVICE int lines_of(std::int64_t count) { return static_cast<int>((count + kWarp - 1) / kWarp); }

struct DriveFrame {
  static constexpr int kThreads = 64, kBlocksPerCore = 8;
  struct Shared {};
  Drive op;

  FF_DEVICE float asked(const float* row, int k) const {
    const float x = row[k];
    return x > op.limit ? op.limit : x < -op.limit ? -op.limit : x == x ? x : 0.0f;
  }

  FF_DEVICE void operator()(const Block& block, Shared&) const {
    const int modes = static_cast<int>(op.own.shape[0]), controls = static_cast<int>(op.most.shape[0]);
    const std::int64_t frame = block.index;
    const float* row = op.coefficients.data + frame * modes;
    float* deltas = op.deltas.data + frame * modes;
    const Most strength = block.reduce(lines_of(modes), kWarp, Most{0.0f}, [&](Most& most, int y, int x) {
      const int k = y * kWarp + x;
      if (k < modes) most.add({__builtin_fabsf(asked(row, k))});
    });
    const float given_way = clipped(strength.value / op.own_gone_at);
    const Most moved = block.reduce(lines_of(modes), kWarp, Most{0.0f}, [&](Most& most, int y, int x) {
      const int k = y * kWarp + x;
      if (k >= modes) return;
      const float delta = asked(row, k) - given_way * op.own.data[k];
      deltas[k] = __builtin_fabsf(delta) < op.still ? 0.0f : delta;
      most.add({__builtin_fabsf(deltas[k])});
    });
    block.each(controls, [&](int c) {
      if (c == 0) op.moves.data[frame] = moved.value > 0.0f ? 1 : 0;
      const float most = op.most.data[c];
      if (most < 0.0f) return;
      float sum = 0.0f;
#pragma unroll 8
      for (int k = 0; k < modes; ++k) sum += deltas[k] * op.weights.data[k * controls + c];
      op.controls.data[frame * controls + c] = sum > 0.0f ? (sum < most ? sum : most) : 0.0f;
    });
  }
};

struct PartFrame {
  static constexpr int kThreads = 256, kBlocksPerCore = 4;
  struct Shared {};
  Part op;

  FF_DEVICE float eye(const Block& block, const float* screen, const View<const std::int32_t>& rows,
                      const View<const float>& rest) const {
    const int count = static_cast<int>(rows.shape[0]);
    return block
        .reduce(lines_of(count), kWarp, Most{0.0f},
                [&](Most& most, int y, int x) {
                  const int i = y * kWarp + x;
                  if (i >= count) return;
                  const float* at = screen + 3 * static_cast<std::int64_t>(rows.data[i]);
                  for (int c = 0; c < 2; ++c) most.add({__builtin_fabsf(at[c] - rest.data[2 * i + c])});
                })
        .value;
  }

  FF_DEVICE float lips(const Block& block, const float* screen) const {
    const int count = static_cast<int>(op.lip_gap.shape[0]);
    return block
        .reduce(lines_of(count), kWarp, Most{0.0f},
                [&](Most& most, int y, int x) {
                  const int i = y * kWarp + x;
                  if (i >= count) return;
                  const float* upper = screen + 3 * static_cast<std::int64_t>(op.lip_rim.data[i]);
                  const float* lower = screen + 3 * static_cast<std::int64_t>(op.lip_rim.data[count + i]);
                  const float dx = upper[0] - lower[0], dy = upper[1] - lower[1];
                  most.add({__builtin_sqrtf(dx * dx + dy * dy) - op.lip_gap.data[i]});
                })
        .value;
  }

  FF_DEVICE void operator()(const Block& block, Shared&) const {
    const std::int64_t frame = block.index;
    const float* screen = op.screen.data + frame * op.screen.shape[1] * 3;
    const float parted[3] = {eye(block, screen, op.left, op.left_rest), eye(block, screen, op.right, op.right_rest),
                             lips(block, screen)};
    block.each(1, [&](int) {
      float* to = op.controls.data + frame * op.controls.shape[1] + op.first;
      for (int i = 0; i < 3; ++i) to[i] = smooth((parted[i] - op.rounding_px) / op.hair_px);
    });
  }
};

struct Place {
  float x, y, z;  // px, px, mm
};

struct TurnFrame {
  Turn op;
  Place* led;  // (B, R)

  FF_DEVICE void moved(int frame, const float* p, float (&to)[3]) const {
    const float* t = op.turns.data + 13 * static_cast<std::int64_t>(frame);
    for (int c = 0; c < 3; ++c) to[c] = t[3 * c] * p[0] + t[3 * c + 1] * p[1] + t[3 * c + 2] * p[2] + t[9 + c];
  }
  FF_DEVICE Place moved_place(int frame, const float* p) const {
    float q[3];
    moved(frame, p, q);
    const float scale = op.camera.data[0] / q[2];
    return {q[0] * scale + op.camera.data[1], q[1] * scale + op.camera.data[2], q[2]};
  }
  FF_DEVICE const float* position(int frame, int vertex) const {
    return op.positions.data + (frame * op.positions.shape[1] + vertex) * 3;
  }
  FF_DEVICE bool turns(int frame) const { return op.turns.data[13 * static_cast<std::int64_t>(frame) + 12] != 0.0f; }
};

// Where the vertices go that are led, from positions that have not turned yet.
struct LeadRow : TurnFrame {
  FF_DEVICE void operator()(int frame, int row) const {
    if (!turns(frame)) return;
    const int count = static_cast<int>(op.border.shape[0]);
    const Place body = moved_place(frame, op.body.data + 3 * row);
    const float* rest = op.rows_rest.data + 2 * row;
    const float* weight = op.weights.data + static_cast<std::int64_t>(row) * count;
    float x = rest[0], y = rest[1];
    for (int n = 0; n < count; ++n) {
      if (weight[n] == 0.0f) continue;
      const Place border = moved_place(frame, position(frame, op.border.data[n]));
      x += weight[n] * (border.x - op.border_rest.data[2 * n]);
      y += weight[n] * (border.y - op.border_rest.data[2 * n + 1]);
    }
    x += op.body_share.data[row] * (body.x - rest[0]);
    y += op.body_share.data[row] * (body.y - rest[1]);
    const float *own = position(frame, op.rows.data[row]), share = op.share.data[row];
    const Place alone = moved_place(frame, own);
    led[frame * op.rows.shape[0] + row] = {share * x + (1.0f - share) * alone.x, share * y + (1.0f - share) * alone.y,
                                           share < 1.0f ? alone.z : own[2]};
  }
};

struct TurnVertex : TurnFrame {
  FF_DEVICE void operator()(int frame, int vertex) const {
    if (!turns(frame)) return;
    if (vertex == 0) op.moves.data[frame] = 1;
    const std::int64_t at = (frame * op.positions.shape[1] + vertex) * 3;
    float* position = op.positions.data + at;
    const int row = op.row_of.data[vertex];
    const Place place = row < 0 ? moved_place(frame, position) : led[frame * op.rows.shape[0] + row];
    const float scale = place.z / op.camera.data[0];
    float q[3] = {(place.x - op.camera.data[1]) * scale, (place.y - op.camera.data[2]) * scale, place.z};
    if (row < 0) moved(frame, position, q);
    for (int c = 0; c < 3; ++c) position[c] = q[c];
    op.screen.data[at] = place.x;
    op.screen.data[at + 1] = place.y;
    op.screen.data[at + 2] = place.z;
  }
};

struct SettlePixel {
  Settle op;
  FF_DEVICE void operator()(int frame, int pixel) const {
    if (op.moves.data[frame] == 0) op.mask.data[frame * op.mask.shape[1] * op.mask.shape[2] + pixel] = 0;
  }
};

struct ComposePixel {
  Compose op;
  FF_DEVICE void operator()(int frame, int pixel) const {
    const int width = static_cast<int>(op.photo.shape[1]);
    const std::int64_t row = pixel / width - op.top, column = pixel % width - op.left;
    const bool within = row >= 0 && row < op.window.shape[1] && column >= 0 && column < op.window.shape[2];
    const std::uint8_t* from =
        within ? op.window.data + ((frame * op.window.shape[1] + row) * op.window.shape[2] + column) * 3
               : op.photo.data + static_cast<std::int64_t>(pixel) * 3;
    std::uint8_t* to = op.image.data + (frame * op.photo.shape[0] * width + pixel) * 3;
    for (int c = 0; c < 3; ++c) to[c] = from[c];
  }
};

}  // namespace frame_device

std::int64_t workspace_bytes(const Drive&) { return 0; }
std::int64_t workspace_bytes(const Part&) { return 0; }
std::int64_t workspace_bytes(const Turn& op) {
  Arena arena(nullptr);
  arena.take<frame_device::Place>(op.positions.shape[0] * op.rows.shape[0]);
  return arena.used();
}
std::int64_t workspace_bytes(const Settle&) { return 0; }
std::int64_t workspace_bytes(const Compose&) { return 0; }

Status run(const Drive& op, Stream stream) {
  return launch(stream, op.coefficients.shape[0], frame_device::DriveFrame{op});
}

Status run(const Part& op, Stream stream) {
  if (op.first < 0 || op.first + 3 > op.controls.shape[1]) return Status::kPreparedOtherwise;
  return launch(stream, op.screen.shape[0], frame_device::PartFrame{op});
}

Status run(const Turn& op, Stream stream) {
  using namespace frame_device;
  Arena arena(op.workspace.data);
  const TurnFrame frame{op, arena.take<Place>(op.positions.shape[0] * op.rows.shape[0])};
  const Status status = for_each(stream, op.positions.shape[0], op.rows.shape[0], LeadRow{frame});
  return status != Status::kOk ? status
                               : for_each(stream, op.positions.shape[0], op.positions.shape[1], TurnVertex{frame});
}

Status run(const Settle& op, Stream stream) {
  return for_each(stream, op.mask.shape[0], op.mask.shape[1] * op.mask.shape[2], frame_device::SettlePixel{op});
}

Status run(const Compose& op, Stream stream) {
  return for_each(stream, op.window.shape[0], op.photo.shape[0] * op.photo.shape[1], frame_device::ComposePixel{op});
}

}  // namespace FF_ISA
}  // namespace fastface
