// Non-owning views of C-contiguous arrays, and the status an op returns. No op owns memory or throws.
#pragma once

#include <cstdint>

namespace fastface {

constexpr int kMaxRank = 4;

enum class Dtype : std::uint8_t { kFloat32, kFloat16, kInt32, kUint8 };

template <class T>
struct View {
  T* data = nullptr;  // null: an optional array that was not given
  std::int64_t shape[kMaxRank] = {0, 0, 0, 0};
};

// A real-valued array in either of two precisions.
struct RealView {
  const void* data = nullptr;
  std::int64_t shape[kMaxRank] = {0, 0, 0, 0};
  Dtype dtype = Dtype::kFloat32;
};

// Scratch memory, aligned to kWorkspaceAlignment, that the caller keeps between calls.
struct WorkspaceView {
  unsigned char* data = nullptr;
  std::int64_t bytes = 0;
};

constexpr std::int64_t kWorkspaceAlignment = 64;

enum class Status : std::uint8_t {
  kOk,
  kTriangleIndexOutOfRange,
  kPreparedOtherwise,
  kLaunchFailed,  // devices only
};

inline const char* status_message(Status status) {
  switch (status) {
    case Status::kTriangleIndexOutOfRange:
      return "triangles must hold vertex indices in [0, V), got one outside";
    case Status::kPreparedOtherwise:
      return "the arrays prepared for this face must fit each other, the image and the controls, and do not";
    case Status::kLaunchFailed:
      return "the device refused the work; its runtime's last error says why";
    case Status::kOk:
      break;
  }
  return "";
}

}  // namespace fastface
