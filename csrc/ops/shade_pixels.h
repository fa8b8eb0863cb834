// The pixel stage of shade: a row is the photo, then the pixels of triangles that change are listed, interpolated,
// placed by whole vectors, and those that do change sampled one by one, all channels of four neighbours at once.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/shade_sample.h"

namespace fastface {
inline namespace FF_ISA {
namespace shading {

constexpr std::int64_t kSegment = 128;  // pixels of a row dealt with together
// Pixels that may change, and where they take their colour from.
struct alignas(64) Segment {
  static constexpr std::int64_t kRoom = kSegment + kLanes;  // whole vectors whatever the count
  std::int32_t column[kRoom];
  std::int32_t layer[kRoom];
  float at[4 * kRoom];          // dx, dy, log gain, 0
  Taps<kRoom> taps;
  std::int32_t moved[kRoom];
  std::int32_t count;
  std::int32_t layers;  // 0 where all are skin
};

// ---- the photo as it is

inline void copy_photo(const Frame& frame, std::int64_t row) {
  const std::uint8_t* from = frame.op->photo_rgb.data + row * frame.width * 3;
  float* to = frame.source + row * frame.width * 3;
  const std::int64_t count = frame.width * 3;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(to + i, load_bytes(from + i));
  for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
  std::memset(frame.mask + row * frame.width, 0, static_cast<std::size_t>(frame.width));
}

FF_INLINE std::int64_t between(std::int64_t x, std::int64_t low, std::int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// ---- which pixels

FF_INLINE std::uint8_t state_at(const Frame& frame, std::int32_t id) {
  const std::uint32_t entry = static_cast<std::uint32_t>(id) + 1u;
  return frame.state[entry <= static_cast<std::uint32_t>(frame.triangles) ? entry : 0u];
}

FF_INLINE void list_pixels(const Frame& frame, const std::int32_t* id, std::int64_t begin, std::int64_t end,
                           std::uint8_t wanted, Segment& s) {
  const std::uint8_t* states = frame.state;
  const std::uint32_t triangles = static_cast<std::uint32_t>(frame.triangles);
  std::int32_t count = s.count;
  for (std::int64_t x = begin; x < end; ++x) {
    const std::uint32_t entry = static_cast<std::uint32_t>(id[x]) + 1u;
    s.column[count] = static_cast<std::int32_t>(x);
    count += (states[entry <= triangles ? entry : 0u] & wanted) != 0;
  }
  s.count = count;
}

// Pixels of a row in [begin, end) that may change. Where a fold shows, skin does though it does not move.
FF_INLINE void list_segment(const Frame& frame, std::int64_t row, std::int64_t begin, std::int64_t end, Segment& s) {
  const std::int32_t* id = frame.id + row * frame.width;
  s.count = 0;
  if (row + 4 < frame.fold_box[0] || row >= frame.fold_box[2]) {
    list_pixels(frame, id, begin, end, kChanges, s);
    return;
  }
  // A pixel at rest begins to read at the next one of the bordered image.
  const std::uint8_t* block = frame.fold_block + (row + 1) / kShadeFoldBlock * frame.blocks_across;
  for (std::int64_t x = begin, stop; x < end; x = stop) {
    const std::int64_t k = (x + 1) / kShadeFoldBlock;
    stop = (k + 1) * kShadeFoldBlock - 1 < end ? (k + 1) * kShadeFoldBlock - 1 : end;
    list_pixels(frame, id, x, stop, block[k] != 0 ? kChanges | kOnSkin : kChanges, s);
  }
}

// ---- where from

FF_INLINE Four interpolated(const float* records, const std::int32_t* corner, float b1, float b2) {
  const Four v0 = load<4>(records + 4 * static_cast<std::int64_t>(corner[0]));
  const Four v1 = load<4>(records + 4 * static_cast<std::int64_t>(corner[1]));
  const Four v2 = load<4>(records + 4 * static_cast<std::int64_t>(corner[2]));
  return v0 + b1 * (v1 - v0) + b2 * (v2 - v0);
}

inline void interpolate_pixels(const Frame& frame, std::int64_t row, Segment& s) {
  // Kept at hand: for all that the compiler knows, a vector's store may change any of them.
  const std::int32_t *id = frame.id + row * frame.width, *triangles = frame.op->triangles.data;
  const float *bary = frame.bary + row * frame.width * 2, *motion = frame.motion;
  const std::uint8_t* state = frame.state + 1;
  const std::int32_t count = s.count;
  std::int32_t layers = 0;
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int64_t x = s.column[i], t = id[x];
    const std::int32_t* corner = triangles + 3 * t;
    const Four v0 = load<4>(motion + 4 * static_cast<std::int64_t>(corner[0]));
    const Four v1 = load<4>(motion + 4 * static_cast<std::int64_t>(corner[1]));
    const Four v2 = load<4>(motion + 4 * static_cast<std::int64_t>(corner[2]));
    const std::int32_t layer = state[t] >> kLayerShift;
    layers |= layer;
    s.layer[i] = layer;
    store<4>(s.at + 4 * i, v0 + bary[2 * x] * (v1 - v0) + bary[2 * x + 1] * (v2 - v0));
  }
  s.layers = layers;
  for (std::int32_t i = s.count; i < s.count + kLanes; ++i) {
    s.column[i] = s.layer[i] = 0;
    store<4>(s.at + 4 * i, Four{});
  }
}

FF_INLINE void load_records(const float* from, VecFloat& x, VecFloat& y, VecFloat& z) {
  VecFloat xz[2], y0[2], unused;
  unzip(load(from), load(from + kLanes), xz[0], y0[0]);
  unzip(load(from + 2 * kLanes), load(from + 3 * kLanes), xz[1], y0[1]);
  unzip(xz[0], xz[1], x, z);
  unzip(y0[0], y0[1], y, unused);
}

inline void place_pixels(const Frame& frame, std::int64_t row, Segment& s) {
  const bool drawn = frame.draws && s.layers != 0;
  const std::int32_t count = s.count;
  for (std::int32_t i = 0; i < count; i += kLanes) {
    VecFloat dx, dy, log_gain;
    load_records(s.at + 4 * i, dx, dy, log_gain);
    const VecInt layer = load(s.layer + i), skin = layer == kSkin;
    const VecFloat x = as_real<VecFloat>(load(s.column + i)) + 0.5f + dx;
    log_gain = place_taps(frame, x, static_cast<float>(row) + 0.5f + dy, log_gain, skin, i, s.taps);
    VecInt moved = (absolute(dx) > kHairPx) | (absolute(dy) > kHairPx) | (absolute(log_gain) > kGainLeast);
    if (drawn)
      for (std::int32_t which = kLeftEye; which <= kPainted; ++which)
        if (frame.share_of[which] > 0.0f) moved |= layer == which;
    store(s.moved + i, moved);
  }
}

// ---- colour

FF_INLINE Four encode_four(Four linear) { return encode_srgb(linear); }

FF_INLINE Four beneath(const Frame& frame, std::int64_t row, std::int64_t stride, const Segment& s, std::int32_t i) {
  if (s.layer[i] != kPainted) return sample(frame.op->eyes.data, stride, s.taps, i);
  const std::int64_t pixel = row * frame.width + s.column[i];
  const std::int32_t* corner = frame.op->triangles.data + 3 * static_cast<std::int64_t>(frame.id[pixel]);
  return encode_four(interpolated(frame.colour, corner, frame.bary[2 * pixel], frame.bary[2 * pixel + 1]));
}

inline void colour_pixels(const Frame& frame, std::int64_t row, const Segment& s) {
  const std::int64_t stride = 8 * frame.op->photo.shape[1];
  const std::uint8_t* photo = frame.op->photo.data;
  float* source = frame.source + row * frame.width * 3;
  std::uint8_t* mask = frame.mask + row * frame.width;
  const std::int32_t count = s.count;
  const float* share = frame.share_of;
  const bool drawn = s.layers != 0 && frame.draws;
  for (std::int32_t i = 0; i < count; ++i) {
    if (s.moved[i] == 0) continue;
    Four colour = sample(photo, stride, s.taps, i);
    if (drawn && share[s.layer[i]] > 0.0f)
      colour += share[s.layer[i]] * (beneath(frame, row, stride, s, i) - colour);
    const std::int64_t x = s.column[i];
    store_three(source + 3 * x, colour);
    mask[x] = 1;
  }
}

// Columns of a row in which something drawn anew shows.
inline void note_drawn(const Frame& frame, std::int64_t row, const Segment& s) {
  for (std::int32_t i = 0; i < s.count; ++i) {
    if (s.layer[i] == kSkin || !(frame.share[s.layer[i] - 1] > 0.0f)) continue;
    if (s.column[i] < frame.drawn_first[row]) frame.drawn_first[row] = s.column[i];
    frame.drawn_end[row] = s.column[i] + 1;
  }
}

inline void shade_row(const Frame& frame, std::int64_t row) {
  copy_photo(frame, row);
  frame.drawn_first[row] = static_cast<std::int32_t>(frame.width);
  frame.drawn_end[row] = 0;
  Segment s;
  for (std::int64_t begin = 0; begin < frame.width; begin += kSegment) {
    list_segment(frame, row, begin, begin + kSegment < frame.width ? begin + kSegment : frame.width, s);
    if (s.count == 0) continue;
    interpolate_pixels(frame, row, s);
    place_pixels(frame, row, s);
    colour_pixels(frame, row, s);
    if (frame.draws && s.layers != 0) note_drawn(frame, row, s);
  }
}

// ---- folds of a frame

inline void mix_folds(const Frame& frame, std::int64_t row) {
  const Shade& op = *frame.op;
  const std::int64_t* box = frame.fold_box;
  const std::int64_t stride = box[3] - box[1] + 2 * kFoldMargin, r = box[0] + row - kFoldMargin;
  float* to = frame.fold + row * stride;
  std::memset(to, 0, static_cast<std::size_t>(stride) * sizeof(float));
  for (std::int64_t d = 0; d < op.folds.shape[0]; ++d) {
    const std::int32_t* own = op.fold_box.data + 4 * d;
    const float weight = frame.fold_weight[d];
    if (finite_or_zero(weight) == 0.0f || r < own[0] || r >= own[2]) continue;
    const float* from = op.folds.data + (d * op.folds.shape[1] + r) * op.folds.shape[2];
    float* line = to + kFoldMargin - box[1];
    for (std::int64_t c = own[1]; c < own[3]; ++c) line[c] += weight * from[c];
  }
}

// ---- the soft edges of what is drawn anew

// The columns that a row shares with what is drawn in it and in its neighbours, one more on each side; false where there
// are none.
FF_INLINE bool soft_columns(const Frame& frame, std::int64_t row, std::int64_t& left, std::int64_t& right) {
  left = frame.width;
  right = 0;
  for (std::int64_t r = between(row - 1, 0, row); r <= row + 1 && r < frame.height; ++r) {
    if (frame.drawn_first[r] < left) left = frame.drawn_first[r];
    if (frame.drawn_end[r] > right) right = frame.drawn_end[r];
  }
  if (left >= right) return false;
  left = between(left - 1, 0, frame.width);
  right = between(right + 1, 0, frame.width);
  return true;
}

// The new colours of a row's soft pixels, aside, so that no other row sees them yet. layer_at(row, column) is a pixel's.
template <class LayerAt>
FF_INLINE void soften(const Frame& frame, std::int64_t row, LayerAt layer_at) {
  const auto share_at = [&](std::int64_t r, std::int64_t c) {
    const bool inside = r >= 0 && r < frame.height && c >= 0 && c < frame.width;
    return inside ? frame.share_of[layer_at(r, c)] : 0.0f;
  };
  std::int64_t left, right;
  if (!soft_columns(frame, row, left, right)) return;
  const std::int64_t width = frame.width;
  const float* above = frame.source + between(row - 1, 0, row) * width * 3;
  const float* here = frame.source + row * width * 3;
  const float* below = frame.source + between(row + 1, row, frame.height - 1) * width * 3;
  const auto column_mean = [&](std::int64_t i) { return 0.25f * (above[i] + below[i]) + 0.5f * here[i]; };
  for (std::int64_t x = left; x < right; ++x) {
    if (frame.mask[row * width + x] == 0) continue;
    float share = share_at(row, x);
    share = larger(share, larger(share_at(row - 1, x), share_at(row + 1, x)));
    share = larger(share, larger(share_at(row, x - 1), share_at(row, x + 1)));
    const std::int64_t before = between(x - 1, 0, x) * 3, after = between(x + 1, x, width - 1) * 3;
    for (std::int64_t c = 0; c < 3; ++c) {
      const float soft = 0.25f * (column_mean(before + c) + column_mean(after + c)) + 0.5f * column_mean(3 * x + c);
      frame.soft[row * width * 3 + 3 * x + c] = here[3 * x + c] + share * (soft - here[3 * x + c]);
    }
  }
}

inline void put_softened(const Frame& frame, std::int64_t row) {
  std::int64_t left, right;
  if (!soft_columns(frame, row, left, right)) return;
  for (std::int64_t x = left; x < right; ++x) {
    const std::int64_t at = row * frame.width + x;
    if (frame.mask[at] != 0) std::memcpy(frame.source + 3 * at, frame.soft + 3 * at, 3 * sizeof(float));
  }
}

}  // namespace shading
}  // namespace FF_ISA
}  // namespace fastface
