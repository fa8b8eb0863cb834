// The pixel stage of render: rows are scanned for pixels that change, which are listed, placed by whole vectors, sampled
// four at a time and finished into the image.
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/blend_kernel.h"
#include "ops/render_planes.h"
#include "ops/shade_frame.h"

namespace fastface {
inline namespace FF_ISA {
namespace rendering {

// A window's frame, and where it goes.
struct Frame {
  shading::Frame shade;
  float shares[3];  // of the eyes and the mouth
  raster::Mesh mesh;
  raster::Sorted sorted;
  Planes planes;
  std::uint8_t* image;         // of the window's first pixel
  std::int64_t image_stride;   // bytes
  std::uint8_t* mask;          // likewise, or null
  std::int64_t mask_stride;
  // Rows and columns in which something drawn anew can be; around them, colours are kept unrounded.
  std::int64_t drawn_top, drawn_end_row;
  std::int32_t drawn_left, drawn_end_column;
  std::int64_t soft_top, soft_end_row, soft_left, soft_end_column;
};

constexpr std::int32_t kListed = 256;  // pixels dealt with together

// Pixels that may change.
struct alignas(64) Listed {
  static constexpr std::int64_t kRoom = kListed + 2 * kLanes;
  float x[kRoom], y[kRoom];     // where the colour comes from
  float gain[kRoom];            // or a layer's mark
  std::int32_t moves[kRoom];    // not 0 where that is not the pixel itself
  std::int32_t offset[kRoom];   // bytes from the first row's first pixel
  std::int32_t changed[kRoom];
  shading::Taps<kRoom> taps;
  std::int32_t count;
  std::int64_t row;  // the first one
};

// ---- which pixels

// Whether a fold touches any of kLanes pixels from x on.
FF_INLINE bool meets_fold(const shading::Frame& f, std::int64_t row, std::int64_t x) {
  if (row + 4 < f.fold_box[0] || row >= f.fold_box[2]) return false;
  const std::uint8_t* block = f.fold_block + (row + 1) / kShadeFoldBlock * f.blocks_across;
  std::int64_t last = (x + kLanes) / kShadeFoldBlock;
  if (last >= f.blocks_across) last = f.blocks_across - 1;
  std::uint8_t any = 0;
  for (std::int64_t k = (x + 1) / kShadeFoldBlock; k <= last; ++k) any |= block[k];
  return any != 0;
}

FF_INLINE void note_drawn(const shading::Frame& f, std::int64_t row, std::int64_t x, std::uint32_t bits) {
  if (bits == 0) return;
  const std::int32_t first = static_cast<std::int32_t>(x) + __builtin_ctz(bits);
  const std::int32_t end = static_cast<std::int32_t>(x) + 32 - __builtin_clz(bits);
  if (first < f.drawn_first[row]) f.drawn_first[row] = first;
  if (end > f.drawn_end[row]) f.drawn_end[row] = end;
}

// Adds the pixels from x on that may change.
FF_INLINE void list_pixels(const Frame& frame, std::int64_t row, std::int64_t x, Listed& listed) {
  const shading::Frame& f = frame.shade;
  const std::int64_t at = row * frame.planes.stride + x;
  const VecFloat dx = load(frame.planes.dx + at), dy = load(frame.planes.dy + at), gain = load(frame.planes.gain + at);
  const VecFloat infinite = splat<VecFloat>(__builtin_inff());
  const VecInt column = ramp<kLanes>() + static_cast<std::int32_t>(x);
  const VecInt there = (load(frame.planes.depth + at) < infinite) & (column < static_cast<std::int32_t>(f.width));
  const VecInt moves = (absolute(dx) > kHairPx) | (absolute(dy) > kHairPx);
  const VecInt skin = gain < 0.5f * kLayerMark;
  VecInt wanted = moves | (skin & (absolute(gain) > kGainLeast));
  if (row >= frame.soft_top && row < frame.soft_end_row) {
    VecInt drawn = {};
    for (std::int32_t layer = kLeftEye; layer <= kPainted; ++layer)
      if (f.share_of[layer] > 0.0f) drawn |= gain == layer_mark(layer);
    drawn &= (column >= frame.drawn_left) & (column < frame.drawn_end_column);
    wanted |= drawn;
    if (row >= frame.drawn_top && row < frame.drawn_end_row) note_drawn(f, row, x, lane_bits(drawn & there));
  }
  if (meets_fold(f, row, x)) wanted |= skin;
  const std::uint32_t bits = lane_bits(wanted & there);
  if (bits == 0) return;
  const std::int32_t to = listed.count;
  const VecInt start = column * 3 + static_cast<std::int32_t>((row - listed.row) * frame.image_stride);
  append_lanes(listed.x + to, VecFloat(as_real<VecFloat>(column) + 0.5f + dx), bits);
  append_lanes(listed.y + to, VecFloat(static_cast<float>(row) + 0.5f + dy), bits);
  append_lanes(listed.gain + to, gain, bits);
  append_lanes(listed.moves + to, moves, bits);
  listed.count += append_lanes(listed.offset + to, start, bits);
}

// ---- where from

inline void place_listed(const Frame& frame, Listed& listed) {
  const shading::Frame& f = frame.shade;
  // Whole vectors: what stands behind the last one is placed, too, and not used.
  for (std::int32_t i = listed.count; i < listed.count + kLanes; ++i)
    listed.x[i] = listed.y[i] = listed.gain[i] = 0.0f;
  for (std::int32_t i = 0; i < listed.count; i += kLanes) {
    const VecFloat gain = load(listed.gain + i);
    const VecInt skin = gain < 0.5f * kLayerMark;
    const VecFloat log_gain =
        shading::place_taps(f, load(listed.x + i), load(listed.y + i), gain, skin, i, listed.taps);
    VecInt changed = load(listed.moves + i) | (absolute(log_gain) > kGainLeast);
    for (std::int32_t layer = kLeftEye; layer <= kPainted; ++layer)
      if (f.share_of[layer] > 0.0f) changed |= gain == layer_mark(layer);
    store(listed.changed + i, changed);
  }
}

// ---- colour

FF_INLINE void finish_pixel(Four colour, std::uint8_t* to) {
  for (int c = 0; c < 3; ++c) to[c] = finished_pixel(colour[c]);
}

#if defined(__AVX512F__)
// Sums of the columns of four pixels: red, green, blue, nothing, of one after the other.
FF_INLINE VecFloat sum_columns(const VecFloat (&p)[4]) {
  const auto halves = [](VecFloat a, VecFloat b) {
    const __m512 x = reinterpret_cast<__m512>(a), y = reinterpret_cast<__m512>(b);
    const __m512 even = _mm512_maskz_shuffle_f32x4(0xffff, x, y, 0x88), odd = _mm512_maskz_shuffle_f32x4(0xffff, x, y, 0xdd);
    return reinterpret_cast<VecFloat>(even) + reinterpret_cast<VecFloat>(odd);
  };
  return halves(halves(p[0], p[1]), halves(p[2], p[3]));
}

// Four pixels that change, none of them drawn anew; returns them unrounded.
FF_INLINE VecFloat colour_four(const std::uint8_t* photo, std::int64_t stride, const Listed& listed, std::int32_t i,
                               std::uint8_t* image) {
  VecFloat weighed[4];
  for (int k = 0; k < 4; ++k) {
    const std::int32_t pair[2] = {listed.taps.down[0][i + k], listed.taps.down[1][i + k]};
    weighed[k] = shading::weigh_columns(photo + 8 * static_cast<std::int64_t>(listed.taps.tap[i + k]), stride, pair,
                                        listed.taps.across + 4 * (i + k));
  }
  const VecFloat colour = sum_columns(weighed);
  // As finished_pixel: NaN and what is below 0 become 0, what is above 255 is cut by the narrowing.
  const __m512 positive = _mm512_maskz_max_ps(0xffff, reinterpret_cast<__m512>(colour), _mm512_setzero_ps());
  const __m512 half_up = reinterpret_cast<__m512>(reinterpret_cast<VecFloat>(positive) + 0.5f);
  const __m128i bytes = _mm512_maskz_cvtusepi32_epi8(0xffff, _mm512_maskz_cvttps_epu32(0xffff, half_up));
  const std::int32_t* offset = listed.offset + i;
  if (offset[3] - offset[0] == 9) {
    const __m128i tight =
        _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    const std::int64_t low = _mm_cvtsi128_si64(tight);
    const std::int32_t high = _mm_extract_epi32(tight, 2);
    std::memcpy(image + offset[0], &low, 8);
    std::memcpy(image + offset[0] + 8, &high, 4);
    return colour;
  }
  std::uint8_t four[16];
  std::memcpy(four, &bytes, 16);
  for (int k = 0; k < 4; ++k) std::memcpy(image + offset[k], four + 4 * k, 3);
  return colour;
}

// Whether pixels i ... i + 3 all change and none of them is drawn anew.
FF_INLINE bool plain_four(const Listed& listed, std::int32_t i) {
  const std::int32_t* c = listed.changed + i;
  const float* g = listed.gain + i;
  const float most = larger(larger(g[0], g[1]), larger(g[2], g[3]));
  return (c[0] & c[1] & c[2] & c[3]) != 0 && most < 0.5f * kLayerMark;
}
#endif

// A pixel of the mouth as painted.
inline Four painted_at(const Frame& frame, std::int64_t row, std::int64_t column) {
  const std::int64_t triangle = frame.planes.id[row * frame.planes.stride + column];
  float b1, b2;
  bary_at(frame.mesh, triangle, row, column, b1, b2);
  return shading::encode_four(
      shading::interpolated(frame.shade.colour, frame.mesh.triangles + 3 * triangle, b1, b2));
}

// Pixels [i, end) of those listed, none of them drawn anew.
inline void colour_plain(const Frame& frame, const Listed& listed, std::int32_t i, std::int32_t end) {
  const std::int64_t stride = 8 * frame.shade.op->photo.shape[1];
  const std::uint8_t* photo = frame.shade.op->photo.data;
  std::uint8_t* image = frame.image + listed.row * frame.image_stride;
#if defined(__AVX512F__)
  for (; i + 4 <= end; i += 4) {
    const std::int32_t* c = listed.changed + i;
    if ((c[0] & c[1] & c[2] & c[3]) != 0) {
      colour_four(photo, stride, listed, i, image);
      continue;
    }
    for (int k = 0; k < 4; ++k)
      if (c[k] != 0) finish_pixel(shading::sample(photo, stride, listed.taps, i + k), image + listed.offset[i + k]);
  }
#endif
  for (; i < end; ++i)
    if (listed.changed[i] != 0)
      finish_pixel(shading::sample(photo, stride, listed.taps, i), image + listed.offset[i]);
}

// Those of one row among which something drawn anew may be, or what is next to it.
inline void colour_soft(const Frame& frame, const Listed& listed, std::int32_t i, std::int32_t end) {
  const shading::Frame& f = frame.shade;
  const std::int64_t stride = 8 * f.op->photo.shape[1], row = listed.row;
  std::uint8_t* image = frame.image + row * frame.image_stride;
  float* source = f.source + row * f.width * 3;
  std::uint8_t* mask = f.mask + row * f.width;
  while (i < end) {
#if defined(__AVX512F__)
    if (i + 4 <= end && plain_four(listed, i)) {
      const VecFloat four = colour_four(f.op->photo.data, stride, listed, i, image);
      for (int k = 0; k < 4; ++k) {
        const std::int32_t offset = listed.offset[i + k];
        shading::store_three(source + offset, Four{four[4 * k], four[4 * k + 1], four[4 * k + 2], 0.0f});
        mask[offset / 3] = 1 + kSkin;
      }
      i += 4;
      continue;
    }
#endif
    const std::int32_t at = i++;
    if (listed.changed[at] == 0) continue;
    const std::int64_t column = listed.offset[at] / 3;
    Four colour = shading::sample(f.op->photo.data, stride, listed.taps, at);
    const std::int32_t layer = layer_of(listed.gain[at]);
    const float share = f.share_of[layer];
    if (share > 0.0f) {
      const Four beneath = layer == kPainted ? painted_at(frame, row, column)
                                             : shading::sample(f.op->eyes.data, stride, listed.taps, at);
      colour += share * (beneath - colour);
    }
    finish_pixel(colour, image + listed.offset[at]);
    shading::store_three(source + 3 * column, colour);
    mask[column] = static_cast<std::uint8_t>(1 + layer);
  }
}

// A row that what is drawn anew reaches into: listed from left to right.
inline void colour_soft_row(const Frame& frame, const Listed& listed) {
  std::int32_t left = 0, right = listed.count;
  while (left < right && listed.offset[left] < 3 * frame.soft_left) ++left;
  while (right > left && listed.offset[right - 1] >= 3 * frame.soft_end_column) --right;
  colour_plain(frame, listed, 0, left);
  colour_soft(frame, listed, left, right);
  colour_plain(frame, listed, right, listed.count);
}

inline void note_changed(const Frame& frame, const Listed& listed) {
  for (std::int32_t i = 0; i < listed.count; ++i) {
    if (listed.changed[i] == 0) continue;
    const std::int64_t down = listed.offset[i] / frame.image_stride;
    const std::int64_t column = (listed.offset[i] - down * frame.image_stride) / 3;
    frame.mask[(listed.row + down) * frame.mask_stride + column] = 1;
  }
}

inline void colour_pixels(const Frame& frame, bool soft, Listed& listed) {
  if (listed.count == 0) return;
  place_listed(frame, listed);
  if (soft) {
    colour_soft_row(frame, listed);
  } else {
    colour_plain(frame, listed, 0, listed.count);
  }
  if (frame.mask != nullptr) note_changed(frame, listed);
  listed.count = 0;
}

// The photo where neighbours of what is drawn anew may look for it.
inline void begin_soft_row(const Frame& frame, std::int64_t row) {
  const shading::Frame& f = frame.shade;
  const std::int64_t left = frame.soft_left, count = frame.soft_end_column - left;
  const std::uint8_t* photo = f.op->photo_rgb.data + (row * f.width + left) * 3;
  float* source = f.source + (row * f.width + left) * 3;
  for (std::int64_t i = 0; i < 3 * count; ++i) source[i] = static_cast<float>(photo[i]);
  std::memset(f.mask + row * f.width + left, 0, static_cast<std::size_t>(count));
}

// Rows [begin, end) of the window, which hold the photo so far.
inline void render_rows(const Frame& frame, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = frame.shade.width;
  const std::int64_t most_rows = 1 + (std::int64_t{1} << 30) / frame.image_stride;  // offsets fit 32 bits
  Listed listed;
  listed.count = 0;
  listed.row = begin;
  for (std::int64_t row = begin; row < end; ++row) {
    const bool soft = row >= frame.soft_top && row < frame.soft_end_row;
    if (soft || listed.count == 0 || row - listed.row >= most_rows) {
      colour_pixels(frame, false, listed);
      listed.row = row;
    }
    frame.shade.drawn_first[row] = static_cast<std::int32_t>(width);
    frame.shade.drawn_end[row] = 0;
    if (soft) begin_soft_row(frame, row);
    for (std::int64_t x = 0; x < width; x += kLanes) {
      list_pixels(frame, row, x, listed);
      if (listed.count < kListed) continue;
      colour_pixels(frame, soft, listed);
      listed.row = row;
    }
    if (soft) colour_pixels(frame, true, listed);
  }
  colour_pixels(frame, false, listed);
}

// ---- soft edges

inline void put_softened(const Frame& frame, std::int64_t row) {
  const shading::Frame& f = frame.shade;
  std::int64_t left, right;
  if (!shading::soft_columns(f, row, left, right)) return;
  for (std::int64_t x = left; x < right; ++x) {
    const std::int64_t at = row * f.width + x;
    if (f.mask[at] == 0) continue;
    for (int c = 0; c < 3; ++c)
      frame.image[row * frame.image_stride + 3 * x + c] = finished_pixel(f.soft[3 * at + c]);
  }
}

inline void soften_row(const Frame& frame, std::int64_t row) {
  shading::soften(frame.shade, row, [&](std::int64_t r, std::int64_t c) {
    const std::uint8_t noted = frame.shade.mask[r * frame.shade.width + c];  // inside the soft box, as r and c are
    return noted > 0 ? noted - 1 : kSkin;
  });
}

}  // namespace rendering
}  // namespace FF_ISA
}  // namespace fastface
