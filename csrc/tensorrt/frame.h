// From the arguments that TensorRT gives a plug-in's kernel to one frame of an op: its inputs' addresses, whole numbers,
// its outputs' addresses. The numbers are the sizes, each letter of the shapes where it first stands, then how many bytes
// of workspace a frame has and, in the order of the description, the attributes (a float by its bits). The last output is
// the workspace of all frames. Optional outputs are not made.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "registry.h"

namespace fastface::tensorrt {

union Slot {
  void* address;
  std::int32_t number;
  Slot() = default;
  FF_HD constexpr explicit Slot(void* a) : address(a) {}
  FF_HD constexpr explicit Slot(std::int32_t n) : number(n) {}
};

struct Count {
  int inputs = 0, numbers = 1, outputs = 1;  // workspace
  bool known[128] = {};

  constexpr void sizes(const char* shape) {
    for (; *shape != '\0'; ++shape) {
      const unsigned char c = static_cast<unsigned char>(*shape);
      if (c == ' ' || (c >= '0' && c <= '9') || known[c & 127]) continue;
      known[c & 127] = true;
      ++numbers;
    }
  }
  template <class V>
  constexpr void input(const char*, V&, const char* shape) {
    ++inputs;
    sizes(shape);
  }
  template <class V>
  constexpr void output(const char*, V&, const char* shape) {
    ++outputs;
    sizes(shape);
  }
  template <class V>
  constexpr void optional_output(const char*, V&, const char*) {}
  template <class T>
  constexpr void attribute(const char* name, T&) {
    numbers += name[0] == 't' && name[1] == 'h' && name[2] == 'r' ? 0 : 1;  // threads
  }
  constexpr void workspace(WorkspaceView&) {}
};

template <class Op>
constexpr Count count_of() {
  Op op{};
  Count count;
  op.describe(count);
  return count;
}

// Arrays that may be one for all frames or one per frame.
template <class Op>
constexpr char kOneOrEach = 0;
template <>
inline constexpr char kOneOrEach<Deform> = 'C';
template <>
inline constexpr char kOneOrEach<Blend> = 'P';

template <class Op>
class FrameBinder {
 public:
  FF_HD FrameBinder(const Slot* slots, bool half, std::int64_t frame) : half_(half), frame_(frame) {
    constexpr Count count = count_of<Op>();
    input_ = slots;
    number_ = slots + count.inputs;
    output_ = number_ + count.numbers;
    for (std::int64_t& size : size_) size = -1;
  }

  template <class T>
  FF_HD void input(const char*, View<const T>& view, const char* shape) {
    view.data = static_cast<const T*>(input_++->address) + bind(view.shape, shape);
  }
  FF_HD void input(const char*, RealView& view, const char* shape) {
    bind(view.shape, shape);
    view.dtype = half_ ? Dtype::kFloat16 : Dtype::kFloat32;
    view.data = input_++->address;
  }
  template <class T>
  FF_HD void output(const char*, View<T>& view, const char* shape) {
    view.data = static_cast<T*>(output_++->address) + bind(view.shape, shape);
  }
  template <class T>
  FF_HD void optional_output(const char*, View<T>&, const char*) {}
  FF_HD void attribute(const char* name, int& value) {
    if (name[0] == 't' && name[1] == 'h' && name[2] == 'r') return;
    take_workspace_bytes();
    value = number_++->number;
  }
  FF_HD void attribute(const char*, float& value) {
    take_workspace_bytes();
    const std::int32_t bits = number_++->number;
    __builtin_memcpy(&value, &bits, sizeof(value));
  }
  FF_HD void workspace(WorkspaceView& view) {
    take_workspace_bytes();
    view.bytes = workspace_bytes_;
    view.data = static_cast<unsigned char*>(output_->address) + frame_ * view.bytes;
  }

 private:
  // They stand between the sizes and the attributes.
  FF_HD void take_workspace_bytes() {
    if (workspace_bytes_ < 0) workspace_bytes_ = number_++->number;
  }

  // Writes the frame's shape; how many elements come before its own.
  FF_HD std::int64_t bind(std::int64_t* to, const char* shape) {
    std::int64_t elements = 1;
    bool of_frames = false;
    int axis = 0;
    for (const char* at = shape; *at != '\0'; ++axis) {
      std::int64_t size = 0;
      if (*at >= '0' && *at <= '9') {
        while (*at >= '0' && *at <= '9') size = 10 * size + (*at++ - '0');
      } else {
        std::int64_t& known = size_[static_cast<unsigned char>(*at) & 127];
        if (known < 0) known = number_++->number;
        size = known;
        const bool each = *at == 'B' || (*at == kOneOrEach<Op> && kOneOrEach<Op> != 0 && size > 1);
        if (axis == 0 && each) {
          of_frames = true;
          size = 1;
        }
        ++at;
      }
      to[axis] = size;
      elements *= size;
      while (*at == ' ') ++at;
    }
    return of_frames ? frame_ * elements : 0;
  }

  const Slot *input_, *number_, *output_;
  bool half_;
  std::int64_t frame_, workspace_bytes_ = -1;
  std::int64_t size_[128];
};

}  // namespace fastface::tensorrt
