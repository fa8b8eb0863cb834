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
constexpr float kWeightOne = 16384.0f;   // 16-bit weights: their error is a hundredth of a grey level
constexpr int kFoldBlockBits = 3;
static_assert(kShadeFoldBlock == 1 << kFoldBlockBits, "a block is found by a shift");
constexpr std::int64_t kFoldMargin = 3;  // a pixel's neighbours reach this far out of the folds' box

// Pixels that may change, and where they take their colour from.
struct alignas(64) Segment {
  static constexpr std::int64_t kRoom = kSegment + kLanes;  // whole vectors whatever the count
  std::int32_t column[kRoom];
  std::int32_t layer[kRoom];
  float at[4 * kRoom];          // dx, dy, log gain, 0
  std::int32_t tap[kRoom];      // the first of the neighbours, as a pixel of the bordered image
  float across[4][kRoom];       // their weights, with the gain and over kWeightOne
  std::int32_t down[2][kRoom];  // weights of rows 0 and 1, and of 2 and 3, in 16 bits each
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

FF_INLINE VecInt weight_pair(VecFloat low, VecFloat high) {
  const auto whole = [](VecFloat w) { return truncated(w * kWeightOne + 65536.5f) - 65536; };
  return (whole(low) & 0xffff) | (whole(high) << 16);
}

// Log gain of the folds where the lanes `near` read them.
inline VecFloat folds_at(const Frame& frame, std::uint32_t near, VecInt tap_row, VecInt tap_column,
                         const VecFloat (&across)[4], const VecFloat (&down)[4]) {
  const std::int64_t *box = frame.fold_box, stride = box[3] - box[1] + 2 * kFoldMargin;
  VecFloat gain = {};
  for (; near != 0; near &= near - 1) {
    const int i = __builtin_ctz(near);
    const std::int64_t r = tap_row[i], c = tap_column[i];
    if (frame.fold_block[(r >> kFoldBlockBits) * frame.blocks_across + (c >> kFoldBlockBits)] == 0) continue;
    const float* tap = frame.fold + (r - box[0] + kFoldMargin) * stride + (c - box[1] + kFoldMargin);
    Four sum = {};
    for (int k = 0; k < 4; ++k) sum += down[k][i] * load<4>(tap + k * stride);
    gain[i] = across[0][i] * sum[0] + across[1][i] * sum[1] + across[2][i] * sum[2] + across[3][i] * sum[3];
  }
  return gain;
}

FF_INLINE VecInt within(VecInt start, std::int64_t first, std::int64_t end) {
  return (start + 3 >= static_cast<std::int32_t>(first)) & (start < static_cast<std::int32_t>(end));
}

inline void place_pixels(const Frame& frame, std::int64_t row, Segment& s) {
  const std::int32_t columns = static_cast<std::int32_t>(frame.width + 2 * kShadeBorder);
  const float width = static_cast<float>(frame.width), height = static_cast<float>(frame.height);
  const std::int64_t* box = frame.fold_box;
  const bool folds = box[0] < box[2], drawn = frame.draws && s.layers != 0;
  const std::int32_t count = s.count;
  for (std::int32_t i = 0; i < count; i += kLanes) {
    VecFloat dx, dy, log_gain, t, across[4], down[4];
    load_records(s.at + 4 * i, dx, dy, log_gain);
    const VecInt layer = load(s.layer + i), skin = layer == kSkin;
    const VecInt column = tap_start<VecFloat>(as_real<VecFloat>(load(s.column + i)) + 0.5f + dx, width, t);
    cubic_weights(t, across);
    const VecInt line = tap_start<VecFloat>(static_cast<float>(row) + 0.5f + dy, height, t);
    cubic_weights(t, down);
    if (folds) {
      const std::uint32_t near = lane_bits(skin & within(line, box[0], box[2]) & within(column, box[1], box[3]));
      if (near != 0) log_gain += folds_at(frame, near, line, column, across, down);
    }
    log_gain = skin ? log_gain : VecFloat{};
    const VecFloat gain = exponential(log_gain) * (1.0f / kWeightOne);
    VecInt moved = (absolute(dx) > kHairPx) | (absolute(dy) > kHairPx) | (absolute(log_gain) > kGainLeast);
    if (drawn)
      for (std::int32_t which = kLeftEye; which <= kPainted; ++which)
        if (frame.share_of[which] > 0.0f) moved |= layer == which;
    store(s.tap + i, line * columns + column);
    for (int k = 0; k < 4; ++k) store(s.across[k] + i, across[k] * gain);
    for (int k = 0; k < 2; ++k) store(s.down[k] + i, weight_pair(down[2 * k], down[2 * k + 1]));
    store(s.moved + i, moved);
  }
}

// ---- colour

// Four rows of four pixels of four channels, each row by its weight: a vector of channels for every column. Bytes lie
// beside those of the row below, so that one instruction multiplies both and adds them.
FF_INLINE void weigh_rows(const std::uint8_t* tap, std::int64_t stride, const std::int32_t (&pair)[2], Four (&out)[4]) {
#if defined(__AVX512F__)
  const auto rows = [&](int k) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tap + 2 * k * stride));
    return _mm512_madd_epi16(_mm512_cvtepu8_epi16(bytes), _mm512_set1_epi32(pair[k]));
  };
  const __m512i sum = _mm512_add_epi32(rows(0), rows(1));
  const VecFloat real = __builtin_convertvector(reinterpret_cast<VecInt>(sum), VecFloat);
  __builtin_memcpy(out, &real, sizeof(real));
#elif defined(__AVX2__)
  for (int half = 0; half < 2; ++half) {
    const auto rows = [&](int k) {
      const std::uint8_t* from = tap + 2 * k * stride + 16 * half;
      const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
      return _mm256_madd_epi16(wide, _mm256_set1_epi32(pair[k]));
    };
    const VecFloat real = reinterpret_cast<VecFloat>(_mm256_cvtepi32_ps(_mm256_add_epi32(rows(0), rows(1))));
    __builtin_memcpy(out + 2 * half, &real, sizeof(real));
  }
#elif defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128();
  for (int half = 0; half < 2; ++half) {
    __m128i sum[2] = {zero, zero};
    for (int k = 0; k < 2; ++k) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(tap + 2 * k * stride + 16 * half));
      const __m128i weights = _mm_set1_epi32(pair[k]);
      sum[0] = _mm_add_epi32(sum[0], _mm_madd_epi16(_mm_unpacklo_epi8(bytes, zero), weights));
      sum[1] = _mm_add_epi32(sum[1], _mm_madd_epi16(_mm_unpackhi_epi8(bytes, zero), weights));
    }
    for (int i = 0; i < 2; ++i) out[2 * half + i] = reinterpret_cast<Four>(_mm_cvtepi32_ps(sum[i]));
  }
#else
  for (int column = 0; column < 4; ++column) {
    out[column] = Four{};
    for (int k = 0; k < 2; ++k) {
      const std::uint8_t* pixel = tap + 2 * k * stride + 8 * column;
      const float first = static_cast<float>(static_cast<std::int16_t>(pair[k] & 0xffff));
      const float second = static_cast<float>(pair[k] >> 16);
      for (int c = 0; c < 4; ++c)
        out[column][c] += first * static_cast<float>(pixel[2 * c]) + second * static_cast<float>(pixel[2 * c + 1]);
    }
  }
#endif
}

FF_INLINE Four sample(const std::uint8_t* image, std::int64_t stride, const Segment& s, std::int32_t i) {
  const std::uint8_t* tap = image + 8 * static_cast<std::int64_t>(s.tap[i]);
  const std::int32_t pair[2] = {s.down[0][i], s.down[1][i]};
  Four column[4];
  weigh_rows(tap, stride, pair, column);
  return (s.across[0][i] * column[0] + s.across[1][i] * column[1]) +
         (s.across[2][i] * column[2] + s.across[3][i] * column[3]);
}

// By the two instructions that it takes; compilers go through memory.
FF_INLINE void store_three(float* to, Four colour) {
  using Pair = Vec<double, 2>;
  const double first = bits_as<Pair>(colour)[0];
  std::memcpy(to, &first, sizeof(first));
  to[2] = colour[2];
}

FF_INLINE Four encode_four(Four linear) { return encode_srgb(linear); }

FF_INLINE Four beneath(const Frame& frame, std::int64_t row, std::int64_t stride, const Segment& s, std::int32_t i) {
  if (s.layer[i] != kPainted) return sample(frame.op->eyes.data, stride, s, i);
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
    Four colour = sample(photo, stride, s, i);
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
