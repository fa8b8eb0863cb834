// An op as one kernel, for TensorRT: a block for every frame, which takes the steps of the device's schedule one after the
// other. Compiled to PTX once for every op: FF_PLUGIN_OP and FF_PLUGIN_SOURCE name it, FF_PLUGIN_HALF is 1 where its real
// numbers are half precision.
#include FF_PLUGIN_SOURCE

#include "tensorrt/frame.h"

namespace fastface::tensorrt {

constexpr int kThreads = 512;  // THREADS in exports/tensorrt_plugins.py

template <class Op, bool kHalf, class... Arguments>
__global__ void __launch_bounds__(kThreads) plugin(Arguments... arguments) {
  __shared__ alignas(Op) unsigned char memory[sizeof(Op)];
  Op& op = *reinterpret_cast<Op*>(memory);
  if (threadIdx.x == 0) {
    const Slot slots[] = {Slot(arguments)...};
    Op made{};
    FrameBinder<Op> binder(slots, kHalf, blockIdx.x);
    made.describe(binder);
    op = made;
  }
  __syncthreads();
  run(op, nullptr);
}

template <class... T>
struct Types {};
template <class T, int N, class... All>
struct Repeated : Repeated<T, N - 1, T, All...> {};
template <class T, class... All>
struct Repeated<T, 0, All...> {
  using type = Types<All...>;
};

template <class Op, bool kHalf, class... I, class... N, class... O>
const void* entry(Types<I...>, Types<N...>, Types<O...>) {
  return reinterpret_cast<const void*>(&plugin<Op, kHalf, I..., N..., O...>);
}

// Named here, so that it is compiled.
const void* entry_point() {
  constexpr Count count = count_of<FF_PLUGIN_OP>();
  return entry<FF_PLUGIN_OP, FF_PLUGIN_HALF>(typename Repeated<void*, count.inputs>::type{},
                                             typename Repeated<std::int32_t, count.numbers>::type{},
                                             typename Repeated<void*, count.outputs>::type{});
}

}  // namespace fastface::tensorrt
