// The pixel stage of shade: a row is the photo, then the pixels of triangles that change are listed, interpolated,
// placed by whole vectors, and those that do change sampled one by one, all channels of four neighbours at once.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/shade_vertices.h"

namespace fastface {
inline namespace FF_ISA {
namespace shading {

constexpr std::int64_t kSegment = 128;   // pixels of a row dealt with together
constexpr std::int64_t kFoldMargin = 3;  // a pixel's neighbours reach this far out of the folds' box

// Pixels that may change, and where they take their colour from.
struct Segment {
  std::int32_t count;
  std::int32_t column[kSegment + kLanes];
  std::int32_t layer[kSegment + kLanes];
  float at[4 * (kSegment + kLanes)];  // dx, dy, log gain, 0
  std::int32_t tap_row[kSegment + kLanes], tap_column[kSegment + kLanes];
  float across[4][kSegment + kLanes], down[4][kSegment + kLanes];  // weights; those down carry the gain
  float log_gain[kSegment + kLanes];
  std::int32_t moved[kSegment + kLanes];
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

// ---- which pixels

FF_INLINE std::uint8_t state_at(const Frame& frame, std::int32_t id) {
  const std::uint32_t entry = static_cast<std::uint32_t>(id) + 1u;
  return frame.state[entry <= static_cast<std::uint32_t>(frame.triangles) ? entry : 0u];
}

FF_INLINE void list_pixels(const Frame& frame, const std::int32_t* id, std::int64_t begin, std::int64_t end,
                           std::uint8_t wanted, Segment& s) {
  std::int32_t count = s.count;
  for (std::int64_t x = begin; x < end; ++x) {
    const std::uint8_t state = state_at(frame, id[x]);
    s.column[count] = static_cast<std::int32_t>(x);
    s.layer[count] = state >> kLayerShift;
    count += (state & wanted) != 0;
  }
  s.count = count;
}

// Columns of a row where a fold shows through pixels that do not move.
FF_INLINE void fold_columns(const Frame& frame, std::int64_t row, std::int64_t& first, std::int64_t& end) {
  const std::int64_t at = row + kShadeBorder;
  const bool near = at + 2 >= frame.fold_box[0] && at - 2 < frame.fold_box[2];
  first = near ? frame.fold_box[1] - kShadeBorder - 2 : 0;
  end = near ? frame.fold_box[3] - kShadeBorder + 2 : 0;
}

FF_INLINE std::int64_t between(std::int64_t x, std::int64_t low, std::int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// ---- where from

FF_INLINE Four interpolated(const float* records, const std::int32_t* corner, float b1, float b2) {
  const Four v0 = load<4>(records + 4 * static_cast<std::int64_t>(corner[0]));
  const Four v1 = load<4>(records + 4 * static_cast<std::int64_t>(corner[1]));
  const Four v2 = load<4>(records + 4 * static_cast<std::int64_t>(corner[2]));
  return v0 + b1 * (v1 - v0) + b2 * (v2 - v0);
}

inline void interpolate_pixels(const Frame& frame, std::int64_t row, Segment& s) {
  const std::int32_t* id = frame.id + row * frame.width;
  const float* bary = frame.bary + row * frame.width * 2;
  for (std::int32_t i = 0; i < s.count; ++i) {
    const std::int64_t x = s.column[i];
    const std::int32_t* corner = frame.op->triangles.data + 3 * static_cast<std::int64_t>(id[x]);
    store<4>(s.at + 4 * i, interpolated(frame.motion, corner, bary[2 * x], bary[2 * x + 1]));
  }
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
  const float width = static_cast<float>(frame.width), height = static_cast<float>(frame.height);
  for (std::int32_t i = 0; i < s.count; i += kLanes) {
    VecFloat dx, dy, gain, t, w[4];
    load_records(s.at + 4 * i, dx, dy, gain);
    const VecFloat x = as_real<VecFloat>(load(s.column + i)) + 0.5f + dx;
    store(s.tap_column + i, tap_start(x, width, t));
    cubic_weights(t, w);
    for (int k = 0; k < 4; ++k) store(s.across[k] + i, w[k]);
    store(s.tap_row + i, tap_start<VecFloat>(static_cast<float>(row) + 0.5f + dy, height, t));
    cubic_weights(t, w);
    for (int k = 0; k < 4; ++k) store(s.down[k] + i, w[k]);
    store(s.log_gain + i, gain);
    store(s.moved + i, VecInt((absolute(dx) > kHairPx) | (absolute(dy) > kHairPx)));
  }
}

// ---- folds

inline void add_folds(const Frame& frame, Segment& s) {
  const std::int64_t *box = frame.fold_box, stride = box[3] - box[1] + 2 * kFoldMargin;
  for (std::int32_t i = 0; i < s.count; ++i) {
    const std::int64_t r = s.tap_row[i], c = s.tap_column[i];
    if (s.layer[i] != kSkin || r + 3 < box[0] || r >= box[2] || c + 3 < box[1] || c >= box[3]) continue;
    const float* tap = frame.fold + (r - box[0] + kFoldMargin) * stride + (c - box[1] + kFoldMargin);
    Four sum = {};
    for (int k = 0; k < 4; ++k) sum += s.down[k][i] * load<4>(tap + k * stride);
    s.log_gain[i] +=
        s.across[0][i] * sum[0] + s.across[1][i] * sum[1] + s.across[2][i] * sum[2] + s.across[3][i] * sum[3];
  }
}

inline void apply_gain(const Frame& frame, Segment& s) {
  for (std::int32_t i = 0; i < s.count; i += kLanes) {
    const VecInt layer = load(s.layer + i);
    const VecInt skin = layer == kSkin;
    const VecFloat log_gain = skin ? load(s.log_gain + i) : VecFloat{};
    const VecFloat gain = exponential(log_gain);
    for (int k = 0; k < 4; ++k) store(s.down[k] + i, load(s.down[k] + i) * gain);
    VecInt moved = load(s.moved + i) | (absolute(log_gain) > kGainLeast);
    for (std::int32_t which = kLeftEye; which <= kPainted; ++which)
      if (frame.share[which - 1] > 0.0f) moved |= layer == which;
    store(s.moved + i, moved);
  }
}

// ---- colour

// One pixel's four channels: kLanes / 4 neighbours in a vector, four rows of them.
FF_INLINE Four sample(const std::uint8_t* image, std::int64_t stride, const Segment& s, std::int32_t i) {
  constexpr int kParts = 16 / kLanes, kEach = kLanes / 4;
  const std::uint8_t* tap = image + s.tap_row[i] * stride + 4 * static_cast<std::int64_t>(s.tap_column[i]);
  VecFloat sum[kParts] = {};
  for (int k = 0; k < 4; ++k)
    for (int part = 0; part < kParts; ++part)
      sum[part] += s.down[k][i] * load_bytes(tap + k * stride + part * kLanes);
  Four colour = {};
  for (int part = 0; part < kParts; ++part)
    for (int each = 0; each < kEach; ++each) {
      Four neighbour;
      std::memcpy(&neighbour, reinterpret_cast<const char*>(&sum[part]) + each * sizeof(Four), sizeof(Four));
      colour += s.across[part * kEach + each][i] * neighbour;
    }
  return colour;
}

FF_INLINE Four encode_four(Four linear) { return encode_srgb(linear); }

FF_INLINE Four beneath(const Frame& frame, std::int64_t row, std::int64_t stride, const Segment& s, std::int32_t i) {
  if (s.layer[i] != kPainted) return sample(frame.op->eyes.data, stride, s, i);
  const std::int64_t pixel = row * frame.width + s.column[i];
  const std::int32_t* corner = frame.op->triangles.data + 3 * static_cast<std::int64_t>(frame.id[pixel]);
  return encode_four(interpolated(frame.colour, corner, frame.bary[2 * pixel], frame.bary[2 * pixel + 1]));
}

inline void colour_pixels(const Frame& frame, std::int64_t row, const Segment& s) {
  const std::int64_t stride = 4 * frame.op->photo.shape[1];
  float* source = frame.source + row * frame.width * 3;
  std::uint8_t* mask = frame.mask + row * frame.width;
  for (std::int32_t i = 0; i < s.count; ++i) {
    if (s.moved[i] == 0) continue;
    Four colour = sample(frame.op->photo.data, stride, s, i);
    const std::int32_t layer = s.layer[i];
    if (layer != kSkin && frame.share[layer - 1] > 0.0f)
      colour += frame.share[layer - 1] * (beneath(frame, row, stride, s, i) - colour);
    const std::int64_t x = s.column[i];
    std::memcpy(source + 3 * x, &colour, 3 * sizeof(float));
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
  const std::int32_t* id = frame.id + row * frame.width;
  std::int64_t fold_first, fold_end;
  fold_columns(frame, row, fold_first, fold_end);
  const bool folds = frame.fold_box[0] < frame.fold_box[2];
  Segment s;
  for (std::int64_t begin = 0; begin < frame.width; begin += kSegment) {
    const std::int64_t end = begin + kSegment < frame.width ? begin + kSegment : frame.width;
    const std::int64_t first = between(fold_first, begin, end), last = between(fold_end, first, end);
    s.count = 0;
    list_pixels(frame, id, begin, first, kChanges, s);
    list_pixels(frame, id, first, last, kChanges | kOnSkin, s);
    list_pixels(frame, id, last, end, kChanges, s);
    if (s.count == 0) continue;
    interpolate_pixels(frame, row, s);
    place_pixels(frame, row, s);
    if (folds) add_folds(frame, s);
    apply_gain(frame, s);
    colour_pixels(frame, row, s);
    if (frame.draws) note_drawn(frame, row, s);
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

FF_INLINE float share_at(const Frame& frame, std::int64_t row, std::int64_t column) {
  if (row < 0 || row >= frame.height || column < 0 || column >= frame.width) return 0.0f;
  return frame.share_of[state_at(frame, frame.id[row * frame.width + column]) >> kLayerShift];
}

// The new colours of a row's soft pixels, aside, so that no other row sees them yet.
inline void soften(const Frame& frame, std::int64_t row) {
  std::int64_t left, right;
  if (!soft_columns(frame, row, left, right)) return;
  const std::int64_t width = frame.width;
  const float* above = frame.source + between(row - 1, 0, row) * width * 3;
  const float* here = frame.source + row * width * 3;
  const float* below = frame.source + between(row + 1, row, frame.height - 1) * width * 3;
  const auto column_mean = [&](std::int64_t i) { return 0.25f * (above[i] + below[i]) + 0.5f * here[i]; };
  for (std::int64_t x = left; x < right; ++x) {
    if (frame.mask[row * width + x] == 0) continue;
    float share = share_at(frame, row, x);
    share = larger(share, larger(share_at(frame, row - 1, x), share_at(frame, row + 1, x)));
    share = larger(share, larger(share_at(frame, row, x - 1), share_at(frame, row, x + 1)));
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
