// The vertex stage of shade: how far each vertex's colour has come, how its light changed, what the mouth's paint looks
// like, and which triangles can differ from the photo at all.
#pragma once

#include <cstdint>

#include "core/simd.h"
#include "ops/shade.h"
#include "ops/shade_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace shading {

using Four = Vec<float, 4>;

// A triangle's byte; one more entry, the first, stands for no triangle.
enum : std::uint8_t { kChanges = 1, kOnSkin = 2, kLayerShift = 2 };

struct Frame {
  const Shade* op;
  const float* positions;
  const float* screen;
  const std::int32_t* id;
  const float* bary;
  const float* shift_weight;  // (S,)
  const float* share;         // (3,) left eye, right eye, mouth
  const float* fold_weight;   // (D,)
  float* source;
  std::uint8_t* mask;
  float share_of[4];  // by layer; none of skin
  bool paint;         // the mouth is drawn in this frame
  bool draws;         // or an eye is

  // Workspace
  float* place;               // (V, 4) camera space
  float* motion;              // (V, 4) dx, dy, log gain, 0
  std::int32_t* changes;      // (V,) not 0 where that is more than a hair
  float* colour;              // (V, 4) linear light of the mouth's parts
  float* normal;              // (T, 4) of faces, as long as twice their area
  float* rim;                 // (6, R) upper x, y, z, lower x, y, z
  std::uint8_t* state;        // (F + 1,)
  std::uint8_t* fold_block;   // not 0 where pixels that begin to read in this block meet a fold
  float* fold;                // the folds of this frame, kFoldMargin around their box
  std::int32_t* drawn_first;  // (H,) first column where something drawn anew shows, or W
  std::int32_t* drawn_end;    // (H,) column behind the last, or 0
  float* soft;                // (H, W, 3) where edges are softened
  std::int64_t vertices, triangles, height, width;
  std::int64_t blocks_across;
  std::int64_t fold_box[4];  // rows and columns of the bordered image; empty where no fold is
};

FF_INLINE float finite_or_zero(float x) { return absolute(x) <= 1e9f ? x : 0.0f; }

// ---- motion

FF_INLINE void store_records(float* to, VecFloat x, VecFloat y, VecFloat z, VecFloat w) {
  VecFloat xz[2], yw[2], out[2];
  zip(x, z, xz[0], xz[1]);
  zip(y, w, yw[0], yw[1]);
  for (int half = 0; half < 2; ++half) {
    zip(xz[half], yw[half], out[0], out[1]);
    store(to + half * 2 * kLanes, out[0]);
    store(to + half * 2 * kLanes + kLanes, out[1]);
  }
}

FF_INLINE void move_one(const Frame& frame, std::int64_t v) {
  const Shade& op = *frame.op;
  for (int c = 0; c < 2; ++c) {
    float to = op.rest_px.data[2 * v + c];
    for (std::int64_t k = 0; k < op.shift_px.shape[0]; ++k)
      if (frame.shift_weight[k] != 0.0f)
        to += frame.shift_weight[k] * op.shift_px.data[(k * frame.vertices + v) * 2 + c];
    frame.motion[4 * v + c] = to - frame.screen[3 * v + c];
  }
  frame.motion[4 * v + 2] = frame.motion[4 * v + 3] = 0.0f;
  frame.changes[v] = absolute(frame.motion[4 * v]) > kHairPx || absolute(frame.motion[4 * v + 1]) > kHairPx;
  for (int c = 0; c < 3; ++c) frame.place[4 * v + c] = frame.positions[3 * v + c];
  frame.place[4 * v + 3] = 0.0f;
}

inline void move_vertices(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Shade& op = *frame.op;
  std::int64_t v = begin;
  for (; v + kLanes <= end; v += kLanes) {
    VecFloat to[2] = {load(op.rest_px.data + 2 * v), load(op.rest_px.data + 2 * v + kLanes)};
    for (std::int64_t k = 0; k < op.shift_px.shape[0]; ++k) {
      const float weight = frame.shift_weight[k];
      if (weight == 0.0f) continue;
      const float* shift = op.shift_px.data + (k * frame.vertices + v) * 2;
      to[0] += weight * load(shift);
      to[1] += weight * load(shift + kLanes);
    }
    VecFloat x, y, screen[3], place[3];
    unzip(to[0], to[1], x, y);
    load_triples(frame.screen + 3 * v, screen);
    x -= screen[0];
    y -= screen[1];
    store_records(frame.motion + 4 * v, x, y, VecFloat{}, VecFloat{});
    store(frame.changes + v, VecInt((absolute(x) > kHairPx) | (absolute(y) > kHairPx)));
    load_triples(frame.positions + 3 * v, place);
    store_records(frame.place + 4 * v, place[0], place[1], place[2], VecFloat{});
  }
  for (; v < end; ++v) move_one(frame, v);
}

// ---- normals

FF_INLINE Four cross(Four a, Four b) {
  using Turn = std::integer_sequence<int, 1, 2, 0, 3>;
  return permute(a * permute(b, b, Turn{}) - permute(a, a, Turn{}) * b, a, Turn{});
}

inline void face_normals(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const std::int32_t* corner = frame.op->faces.data;
  const float* place = frame.place;
  float* normal = frame.normal;
  for (std::int64_t t = begin; t < end; ++t) {
    const Four a = load<4>(place + 4 * static_cast<std::int64_t>(corner[3 * t]));
    const Four b = load<4>(place + 4 * static_cast<std::int64_t>(corner[3 * t + 1]));
    const Four c = load<4>(place + 4 * static_cast<std::int64_t>(corner[3 * t + 2]));
    store<4>(normal + 4 * t, cross(b - a, c - a));
  }
}

FF_INLINE VecFloat root(VecFloat x) {
  VecFloat y;
  for (int i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
}

// Irradiance at kLanes vertices of a list from the one at `at`.
FF_INLINE VecFloat irradiance_at(const Frame& frame, const std::int32_t* start, const std::int32_t* fans,
                                 std::int64_t at) {
  const float* normal = frame.normal;
  float sums[3 * kLanes + 1];
  for (int i = 0; i < kLanes; ++i) {
    Four sum = {};
    for (std::int32_t j = start[at + i]; j < start[at + i + 1]; ++j)
      sum += load<4>(normal + 4 * static_cast<std::int64_t>(fans[j]));
    store<4>(sums + 3 * i, sum);
  }
  VecFloat n[3];
  load_triples(sums, n);
  const VecFloat length = root(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
  const VecFloat inverse = 1.0f / larger(length, splat<VecFloat>(1e-12f));
  return irradiance<VecFloat>(frame.op->light.data, n[0] * inverse, n[1] * inverse, n[2] * inverse);
}

inline void light_vertices(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Shade& op = *frame.op;
  for (std::int64_t at = begin; at < end; at += kLanes) {
    const VecFloat lit = irradiance_at(frame, op.lit_fan_start.data, op.lit_fans.data, at);
    const VecFloat change = natural_log(lit) - load(op.lit_rest_log.data + at);
    const VecFloat gain = clamped(load(op.lit_relief.data + at) * change, -kGainLimit, kGainLimit);
    const VecInt shows = absolute(gain) > kGainLeast;
    for (int i = 0; i < kLanes; ++i) {
      const std::int64_t v = op.lit.data[at + i];
      frame.motion[4 * v + 2] = gain[i];
      frame.changes[v] |= shows[i];
    }
  }
}

// ---- the mouth

constexpr std::int64_t kRimRoom = 16;  // floats that may be read from any start in the table of the rims

inline void gather_rim(const Frame& frame) {
  const View<const std::int32_t>& rim = frame.op->lip_rim;
  for (std::int64_t row = 0; row < 2; ++row)
    for (std::int64_t r = 0; r < rim.shape[1]; ++r)
      for (std::int64_t c = 0; c < 3; ++c)
        frame.rim[(row * 3 + c) * rim.shape[1] + r] =
            frame.positions[3 * static_cast<std::int64_t>(rim.data[row * rim.shape[1] + r]) + c];
}

// table[index]; kRimRoom floats are there to read.
FF_INLINE VecFloat looked_up(const float* table, std::int64_t count, VecInt index) {
#if defined(__AVX512F__)
  if (count <= kLanes)
    return reinterpret_cast<VecFloat>(_mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(index),
                                                                  reinterpret_cast<__m512>(load(table))));
#endif
  static_cast<void>(count);
  VecFloat found;
  for (int i = 0; i < kLanes; ++i) found[i] = table[index[i]];
  return found;
}

FF_INLINE Opening<VecFloat> opening_at(const Frame& frame, VecFloat x, VecFloat y, VecFloat z) {
  const std::int64_t count = frame.op->lip_rim.shape[1];
  float corner[3], axis[3], axis2 = 0.0f;
  for (std::int64_t c = 0; c < 3; ++c) {
    const float *upper = frame.rim + c * count, *lower = upper + 3 * count;
    corner[c] = 0.5f * (upper[0] + lower[0]);
    axis[c] = 0.5f * (upper[count - 1] + lower[count - 1]) - corner[c];
    axis2 += axis[c] * axis[c];
  }
  Opening<VecFloat> o;
  const VecFloat along = (x - corner[0]) * axis[0] + (y - corner[1]) * axis[1] + (z - corner[2]) * axis[2];
  o.t = along * (1.0f / (axis2 > 1e-6f ? axis2 : 1e-6f));
  const VecFloat at = clamped(o.t, 0.0f, 1.0f) * static_cast<float>(count - 1);
  VecInt index = truncated(at);
  const VecInt last = splat<VecInt>(static_cast<std::int32_t>(count - 2));
  index = index < last ? index : last;
  const VecFloat w = at - as_real<VecFloat>(index);
  VecFloat rim[2][3];
  for (int row = 0; row < 2; ++row)
    for (int c = 0; c < 3; ++c) {
      const float* points = frame.rim + (row * 3 + c) * count;
      const VecFloat from = looked_up(points, count, index);
      rim[row][c] = from + w * (looked_up(points, count, index + 1) - from);
    }
  o.top_x = rim[0][0];
  o.top_y = rim[0][1];
  o.gap_x = rim[1][0] - rim[0][0];
  o.gap_y = rim[1][1] - rim[0][1];
  o.height = root(o.gap_x * o.gap_x + o.gap_y * o.gap_y);
  o.rim_z = 0.5f * (rim[0][2] + rim[1][2]);
  return o;
}

inline void paint_vertices(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Shade& op = *frame.op;
  for (std::int64_t at = begin; at < end; at += kLanes) {
    float places[3 * kLanes + 1];
    for (int i = 0; i < kLanes; ++i)
      store<4>(places + 3 * i, load<4>(frame.place + 4 * static_cast<std::int64_t>(op.painted.data[at + i])));
    VecFloat p[3], paint[3];
    load_triples(places, p);
    const VecFloat lit = irradiance_at(frame, op.painted_fan_start.data, op.painted_fans.data, at);
    const Opening<VecFloat> opening = opening_at(frame, p[0], p[1], p[2]);
    const VecFloat even = VecFloat{} + kPaintLitMost;
    const VecFloat light = (lit < even ? lit : even) * mouth_light(opening, p[0], p[1], p[2], root);
    load_triples(op.paint_linear.data + 3 * at, paint);
    for (int i = 0; i < kLanes; ++i) {
      const Four colour = {paint[0][i] * light[i], paint[1][i] * light[i], paint[2][i] * light[i], 0.0f};
      store<4>(frame.colour + 4 * static_cast<std::int64_t>(op.painted.data[at + i]), colour);
    }
  }
}

// ---- triangles

// A triangle whose corners neither move nor change their light has no pixel that does.
inline void mark_triangles(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const Shade& op = *frame.op;
  std::uint8_t always[4];
  for (int layer = 0; layer < 4; ++layer)
    always[layer] = static_cast<std::uint8_t>(layer << kLayerShift | (layer == kSkin ? kOnSkin : 0) |
                                              (layer != kSkin && frame.share[layer - 1] > 0.0f ? kChanges : 0));
  const std::int32_t *corner = op.triangles.data, *changes = frame.changes;
  const std::uint8_t* layer = op.layer.data;
  std::uint8_t* state = frame.state + 1;
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int32_t any = changes[corner[3 * t]] | changes[corner[3 * t + 1]] | changes[corner[3 * t + 2]];
    state[t] = static_cast<std::uint8_t>(always[layer[t] & 3] | (any & kChanges));
  }
}

}  // namespace shading
}  // namespace FF_ISA
}  // namespace fastface
