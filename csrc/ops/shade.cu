// Schedule for devices: vertices, then light, then pixels. A block shades a tile of one frame; where something is drawn
// anew it does so with one more pixel all around, so that the soft edges need no second pass over the image. Nothing is
// prepared for a frame beyond its vertices: a pixel finds the folds it lies in by itself.
#include "ops/shade.h"

#include "core/launch.h"
#include "core/workspace.h"
#include "ops/shade_kernel.h"

namespace fastface {
inline namespace FF_ISA {
namespace shade_device {

struct alignas(16) Record {
  float x, y, z, w;
};

struct Scratch {
  Record* motion;  // (B, V) dx, dy, log gain, 0
  Record* colour;  // (B, V) linear light of the mouth's parts
};

FF_DEVICE Record blended(const Record* records, const std::int32_t* corner, float b1, float b2) {
  const Record p = records[corner[0]], q = records[corner[1]], r = records[corner[2]];
  return {p.x + b1 * (q.x - p.x) + b2 * (r.x - p.x), p.y + b1 * (q.y - p.y) + b2 * (r.y - p.y),
          p.z + b1 * (q.z - p.z) + b2 * (r.z - p.z), 0.0f};
}

FF_DEVICE float finite_or_zero(float x) { return absolute(x) <= 1e9f ? x : 0.0f; }

struct Root {
  FF_DEVICE float operator()(float x) const { return __builtin_sqrtf(x); }
};

// One frame of the op.
struct Face {
  const Shade& op;
  const float* positions;
  const float* screen;
  const float* shift_weight;
  const float* share;  // left eye, right eye, mouth
  const float* fold_weight;
  Record *motion, *colour;

  FF_DEVICE Face(const Shade& given, const Scratch& scratch, std::int64_t frame) : op(given) {
    const std::int64_t vertices = op.positions.shape[1];
    positions = op.positions.data + frame * vertices * 3;
    screen = op.screen.data + frame * vertices * 3;
    shift_weight = op.controls.data + frame * op.controls.shape[1];
    share = shift_weight + op.shift_px.shape[0];
    fold_weight = share + 3;
    motion = scratch.motion + frame * vertices;
    colour = scratch.colour + frame * vertices;
  }
  FF_DEVICE float share_of(std::int32_t layer) const { return layer == kSkin ? 0.0f : share[layer - 1]; }
  FF_DEVICE bool paints() const { return op.painted.shape[0] > 0 && share[kPainted - 1] > 0.0f; }
  FF_DEVICE bool draws() const { return share[0] > 0.0f || share[1] > 0.0f || share[2] > 0.0f; }
};

// ---- vertices

struct Move {
  Shade op;
  Scratch scratch;

  FF_DEVICE void operator()(int frame, int v) const {
    const Face face(op, scratch, frame);
    float to[2] = {op.rest_px.data[2 * v], op.rest_px.data[2 * v + 1]};
    for (std::int64_t k = 0; k < op.shift_px.shape[0]; ++k) {
      const float weight = face.shift_weight[k];
      if (weight == 0.0f) continue;
      const float* shift = op.shift_px.data + (k * op.rest_px.shape[0] + v) * 2;
      to[0] += weight * shift[0];
      to[1] += weight * shift[1];
    }
    face.motion[v] = {to[0] - face.screen[3 * v], to[1] - face.screen[3 * v + 1], 0.0f, 0.0f};
    if (face.share[kPainted - 1] > 0.0f) face.colour[v] = {0.0f, 0.0f, 0.0f, 0.0f};  // unless it is painted
  }
};

FF_DEVICE float irradiance_at(const Face& face, const std::int32_t* fan, const std::int32_t* end) {
  float n[3] = {0.0f, 0.0f, 0.0f};
  for (; fan < end; ++fan) {
    const std::int32_t* corner = face.op.faces.data + 3 * static_cast<std::int64_t>(*fan);
    const float* a = face.positions + 3 * static_cast<std::int64_t>(corner[0]);
    const float* b = face.positions + 3 * static_cast<std::int64_t>(corner[1]);
    const float* c = face.positions + 3 * static_cast<std::int64_t>(corner[2]);
    const float u[3] = {b[0] - a[0], b[1] - a[1], b[2] - a[2]}, v[3] = {c[0] - a[0], c[1] - a[1], c[2] - a[2]};
    n[0] += u[1] * v[2] - u[2] * v[1];
    n[1] += u[2] * v[0] - u[0] * v[2];
    n[2] += u[0] * v[1] - u[1] * v[0];
  }
  const float length = __builtin_sqrtf(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
  const float inverse = 1.0f / larger(length, 1e-12f);
  return irradiance<float>(face.op.light.data, n[0] * inverse, n[1] * inverse, n[2] * inverse);
}

FF_DEVICE Opening<float> opening_at(const Face& face, const float* p) {
  const View<const std::int32_t>& rim = face.op.lip_rim;
  const int count = static_cast<int>(rim.shape[1]);
  const auto at = [&](int row, int i) {
    return face.positions + 3 * static_cast<std::int64_t>(rim.data[row * count + i]);
  };
  float corner[3], axis[3], axis2 = 0.0f, along = 0.0f;
  for (int c = 0; c < 3; ++c) {
    corner[c] = 0.5f * (at(0, 0)[c] + at(1, 0)[c]);
    axis[c] = 0.5f * (at(0, count - 1)[c] + at(1, count - 1)[c]) - corner[c];
    axis2 += axis[c] * axis[c];
    along += (p[c] - corner[c]) * axis[c];
  }
  Opening<float> o;
  o.t = along * (1.0f / (axis2 > 1e-6f ? axis2 : 1e-6f));
  const float place = clamped(o.t, 0.0f, 1.0f) * static_cast<float>(count - 1);
  const int whole = truncated(place), index = whole < count - 2 ? whole : count - 2;
  const float w = place - static_cast<float>(index);
  float between[2][3];
  for (int row = 0; row < 2; ++row)
    for (int c = 0; c < 3; ++c) {
      const float from = at(row, index)[c];
      between[row][c] = from + w * (at(row, index + 1)[c] - from);
    }
  o.top_x = between[0][0];
  o.top_y = between[0][1];
  o.gap_x = between[1][0] - between[0][0];
  o.gap_y = between[1][1] - between[0][1];
  o.height = __builtin_sqrtf(o.gap_x * o.gap_x + o.gap_y * o.gap_y);
  o.rim_z = 0.5f * (between[0][2] + between[1][2]);
  return o;
}

// The last vertex of both lists is repeated: the same value, written more than once, would still be a race.
FF_DEVICE bool repeated(const View<const std::int32_t>& list, int i) { return i > 0 && list.data[i] == list.data[i - 1]; }

struct Light {
  Shade op;
  Scratch scratch;

  FF_DEVICE void operator()(int frame, int i) const {
    const Face face(op, scratch, frame);
    const int lit = static_cast<int>(op.lit.shape[0]);
    if (i < lit) {
      light(face, i);
    } else if (face.paints()) {
      paint(face, i - lit);
    }
  }

  FF_DEVICE void light(const Face& face, int i) const {
    if (repeated(op.lit, i)) return;
    const std::int32_t *start = op.lit_fan_start.data + i, *fans = op.lit_fans.data;
    const float lit = irradiance_at(face, fans + start[0], fans + start[1]);
    const float change = natural_log(lit) - op.lit_rest_log.data[i];
    face.motion[op.lit.data[i]].z = clamped(op.lit_relief.data[i] * change, -kGainLimit, kGainLimit);
  }

  FF_DEVICE void paint(const Face& face, int i) const {
    if (repeated(op.painted, i)) return;
    const std::int32_t *start = op.painted_fan_start.data + i, *fans = op.painted_fans.data;
    const std::int64_t v = op.painted.data[i];
    const float *p = face.positions + 3 * v, *own = op.paint_linear.data + 3 * i;
    const float lit = irradiance_at(face, fans + start[0], fans + start[1]);
    const float even = lit < kPaintLitMost ? lit : kPaintLitMost;
    const float light = even * mouth_light(opening_at(face, p), p[0], p[1], p[2], Root{});
    face.colour[v] = {own[0] * light, own[1] * light, own[2] * light, 0.0f};
  }
};

// ---- pixels

struct Pixel {
  float rgb[3];
  float share;  // of what is drawn anew there, whether it shows or not
  bool differs;
};

// Where a pixel takes its colour from: the first of 4 x 4 neighbours in the bordered image, and their weights.
struct Tap {
  int row, column;
  float down[4], across[4];
};

FF_DEVICE Tap tap_at(float x_px, float y_px, float width, float height) {
  Tap tap;
  float t;
  tap.column = tap_start(x_px, width, t);
  cubic_weights(t, tap.across);
  tap.row = tap_start(y_px, height, t);
  cubic_weights(t, tap.down);
  return tap;
}

// An image of which each byte lies beside the one below it.
FF_DEVICE void sample(const View<const std::uint8_t>& image, const Tap& tap, float (&rgb)[3]) {
  const std::int64_t columns = image.shape[1];
  for (float& channel : rgb) channel = 0.0f;
  for (int half = 0; half < 4; half += 2) {
    const std::uint64_t* line =
        reinterpret_cast<const std::uint64_t*>(image.data) + (tap.row + half) * columns + tap.column;
    for (int k = 0; k < 4; ++k) {
      const std::uint64_t eight = line[k];
      for (int c = 0; c < 3; ++c) {
        const float first = static_cast<float>(static_cast<std::uint32_t>(eight >> (16 * c)) & 0xffu);
        const float second = static_cast<float>(static_cast<std::uint32_t>(eight >> (16 * c + 8)) & 0xffu);
        rgb[c] += tap.across[k] * (tap.down[half] * first + tap.down[half + 1] * second);
      }
    }
  }
}

// Log gain of the folds.
FF_DEVICE float folds_at(const Face& face, const Tap& tap) {
  const Shade& op = face.op;
  const std::int64_t rows = op.folds.shape[1], columns = op.folds.shape[2];
  const std::int64_t down = op.fold_block.shape[1], across = op.fold_block.shape[2];
  const std::int64_t block = tap.row / kShadeFoldBlock * across + tap.column / kShadeFoldBlock;
  float gain = 0.0f;
  for (std::int64_t d = 0; d < op.folds.shape[0]; ++d) {
    const float weight = face.fold_weight[d];
    if (op.fold_block.data[d * down * across + block] == 0 || finite_or_zero(weight) == 0.0f) continue;
    const float* from = op.folds.data + (d * rows + tap.row) * columns + tap.column;
    float sum = 0.0f;
    for (int k = 0; k < 4; ++k) {
      float line = 0.0f;
      for (int i = 0; i < 4; ++i) line += tap.across[i] * from[k * columns + i];
      sum += tap.down[k] * line;
    }
    gain += weight * sum;
  }
  return gain;
}

struct Tiles {
  static constexpr int kHeight = 16, kWidth = 32, kAround = 1;
  static constexpr int kRows = kHeight + 2 * kAround, kColumns = kWidth + 2 * kAround;
  static constexpr int kThreads = 256, kBlocksPerCore = 3;
  struct Shared {
    Pixel pixel[kRows][kColumns];
  };
  Shade op;
  Scratch scratch;
  int down, across;

  FF_DEVICE void operator()(const Block& block, Shared& shared) const {
    const int frame = block.index / (down * across), tile = block.index % (down * across);
    const int top = tile / across * kHeight, left = tile % across * kWidth;
    const int height = static_cast<int>(op.triangle_id.shape[1]), width = static_cast<int>(op.triangle_id.shape[2]);
    const int rows = height - top < kHeight ? height - top : kHeight;
    const int columns = width - left < kWidth ? width - left : kWidth;
    const Face face(op, scratch, frame);
    if (!face.draws()) {
      block.each(rows, columns, [&](int y, int x) {
        const Pixel pixel = shade(face, frame, top + y, left + x);
        put(frame, top + y, left + x, pixel.rgb, pixel.differs);
      });
      return;
    }
    // One pixel after the other, not row by row: a row is two pixels wider than a warp.
    block.each(kRows * kColumns, [&](int i) {
      const int y = i / kColumns, x = i % kColumns;
      if (y >= rows + 2 * kAround || x >= columns + 2 * kAround) return;
      // Borders are repeated.
      const int row = top + y - kAround, column = left + x - kAround;
      const bool outside = row < 0 || row >= height || column < 0 || column >= width;
      Pixel pixel = shade(face, frame, row < 0 ? 0 : row < height ? row : height - 1,
                          column < 0 ? 0 : column < width ? column : width - 1);
      if (outside) pixel.share = 0.0f;
      shared.pixel[y][x] = pixel;
    });
    block.each(rows, columns, [&](int y, int x) {
      float rgb[3];
      soften(shared, y + kAround, x + kAround, rgb);
      put(frame, top + y, left + x, rgb, shared.pixel[y + kAround][x + kAround].differs);
    });
  }

  FF_DEVICE void put(int frame, int row, int column, const float (&rgb)[3], bool differs) const {
    const std::int64_t at = (frame * op.triangle_id.shape[1] + row) * op.triangle_id.shape[2] + column;
    for (int c = 0; c < 3; ++c) op.source.data[3 * at + c] = rgb[c];
    op.mask.data[at] = differs ? 1 : 0;
  }

  FF_DEVICE Pixel shade(const Face& face, int frame, int row, int column) const {
    const std::int64_t width = op.triangle_id.shape[2], in_photo = row * width + column;
    const std::int64_t at = frame * op.triangle_id.shape[1] * width + in_photo;
    Pixel pixel;
    pixel.share = 0.0f;
    pixel.differs = false;
    const std::int32_t id = op.triangle_id.data[at];
    if (id >= 0 && id < op.triangles.shape[0]) colour(face, id, op.bary.data + 2 * at, row, column, pixel);
    if (!pixel.differs)
      for (int c = 0; c < 3; ++c) pixel.rgb[c] = static_cast<float>(op.photo_rgb.data[3 * in_photo + c]);
    return pixel;
  }

  FF_DEVICE void colour(const Face& face, std::int32_t id, const float* bary, int row, int column,
                        Pixel& pixel) const {
    const std::int32_t* corner = op.triangles.data + 3 * static_cast<std::int64_t>(id);
    const std::int32_t layer = op.layer.data[id] & 3;
    const Record offset = blended(face.motion, corner, bary[0], bary[1]);
    const Tap tap = tap_at(static_cast<float>(column) + 0.5f + offset.x, static_cast<float>(row) + 0.5f + offset.y,
                           static_cast<float>(op.triangle_id.shape[2]), static_cast<float>(op.triangle_id.shape[1]));
    const float log_gain = layer == kSkin ? offset.z + folds_at(face, tap) : 0.0f;
    pixel.share = face.share_of(layer);
    const bool drawn = pixel.share > 0.0f;
    pixel.differs =
        absolute(offset.x) > kHairPx || absolute(offset.y) > kHairPx || absolute(log_gain) > kGainLeast || drawn;
    if (!pixel.differs) return;
    sample(op.photo, tap, pixel.rgb);
    const float gain = exponential(log_gain);
    for (float& channel : pixel.rgb) channel *= gain;
    if (!drawn) return;
    float beneath[3];
    if (layer == kPainted) {
      const Record linear = blended(face.colour, corner, bary[0], bary[1]);
      beneath[0] = encode_srgb(linear.x);
      beneath[1] = encode_srgb(linear.y);
      beneath[2] = encode_srgb(linear.z);
    } else {
      sample(op.eyes, tap, beneath);
    }
    for (int c = 0; c < 3; ++c) pixel.rgb[c] += pixel.share * (beneath[c] - pixel.rgb[c]);
  }

  // 1 2 1 in both directions where what is drawn anew is, or is beside.
  FF_DEVICE static void soften(const Shared& shared, int y, int x, float (&rgb)[3]) {
    const Pixel& here = shared.pixel[y][x];
    float share = here.share;
    share = larger(share, larger(shared.pixel[y - 1][x].share, shared.pixel[y + 1][x].share));
    share = larger(share, larger(shared.pixel[y][x - 1].share, shared.pixel[y][x + 1].share));
    for (int c = 0; c < 3; ++c) rgb[c] = here.rgb[c];
    if (!here.differs || !(share > 0.0f)) return;
    for (int c = 0; c < 3; ++c) {
      const auto mean = [&](int column) {
        return 0.25f * (shared.pixel[y - 1][column].rgb[c] + shared.pixel[y + 1][column].rgb[c]) +
               0.5f * shared.pixel[y][column].rgb[c];
      };
      const float soft = 0.25f * (mean(x - 1) + mean(x + 1)) + 0.5f * mean(x);
      rgb[c] += share * (soft - rgb[c]);
    }
  }
};

FF_SCHEDULE Scratch take_scratch(const Shade& op, Arena& arena) {
  const std::int64_t records = op.positions.shape[0] * op.positions.shape[1];
  Scratch scratch;
  scratch.motion = arena.take<Record>(records);
  scratch.colour = arena.take<Record>(records);
  return scratch;
}

FF_SCHEDULE bool shapes_agree(const Shade& op) {
  const std::int64_t rows = op.triangle_id.shape[1] + 2 * kShadeBorder;
  const std::int64_t columns = op.triangle_id.shape[2] + 2 * kShadeBorder;
  const auto blocks = [](std::int64_t size) { return (size + kShadeFoldBlock - 1) / kShadeFoldBlock; };
  // Their pixels are read eight bytes at a time.
  const auto aligned = [](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 8 == 0; };
  return aligned(op.photo.data) && aligned(op.eyes.data) && op.photo.shape[0] == rows - 1 && op.photo.shape[1] == columns &&
         (op.folds.shape[0] == 0 || op.folds.shape[1] == rows) && op.fold_block.shape[1] == blocks(rows) &&
         op.fold_block.shape[2] == blocks(columns) && op.lit_fan_start.shape[0] == op.lit.shape[0] + 1 &&
         op.painted_fan_start.shape[0] == op.painted.shape[0] + 1 && op.lip_rim.shape[1] >= 2 && op.lit_faces >= 0 &&
         op.lit_faces <= op.faces.shape[0] &&
         op.controls.shape[1] == op.shift_px.shape[0] + 3 + op.folds.shape[0];
}

}  // namespace shade_device

std::int64_t workspace_bytes(const Shade& op) {
  Arena arena(nullptr);
  shade_device::take_scratch(op, arena);
  return arena.used();
}

FF_SCHEDULE Status run(const Shade& op, Stream stream) {
  using namespace shade_device;
  if (!shapes_agree(op)) return Status::kPreparedOtherwise;
  Arena arena(op.workspace.data);
  const Scratch scratch = take_scratch(op, arena);
  const std::int64_t frames = op.positions.shape[0];
  const std::int64_t down = (op.triangle_id.shape[1] + Tiles::kHeight - 1) / Tiles::kHeight;
  const std::int64_t across = (op.triangle_id.shape[2] + Tiles::kWidth - 1) / Tiles::kWidth;
  Status status = for_each(stream, frames, op.positions.shape[1], Move{op, scratch});
  if (status == Status::kOk)
    status = for_each(stream, frames, op.lit.shape[0] + op.painted.shape[0], Light{op, scratch});
  if (status == Status::kOk)
    status = launch(stream, frames * down * across,
                    Tiles{op, scratch, static_cast<int>(down), static_cast<int>(across)});
  return status;
}

}  // namespace FF_ISA
}  // namespace fastface
