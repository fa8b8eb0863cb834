// Kernels, launched on a GPU or emulated on the host: the same .cu source compiles with nvcc and with the host's compiler.
//
// A kernel is a struct of parameters with
//
//   static constexpr int kThreads;        a multiple of 32
//   static constexpr int kBlocksPerCore;  how many should fit a multiprocessor; bounds the registers
//   struct Shared { ... };                what the threads of a block share; its content is undefined at first
//   FF_DEVICE void operator()(const Block& block, Shared& shared) const;
//
// and works in phases: block.each(...), block.reduce(...). All threads of a block wait at the end of a phase. Between
// phases every thread runs the same code on the same values, so that nothing but parameters, `shared` and what phases
// return may be read there.
//
// The emulation runs blocks and threads one after the other, in an order that a test may choose. A phase whose result
// depends on that order shows as a difference between orders; compiled with FF_WATCHED, every access is compared with
// those of other threads (core/watch.h). Work is done at once or, if a test wants it, not before somebody waits for its
// stream. What cannot show is what a GPU alone does: caches, warps, nvcc's code.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/macros.h"
#include "core/stream.h"
#include "core/view.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define FF_DEVICE __device__ __forceinline__
#else
#include <cstring>
#include <functional>
#include <utility>

#include "core/watch.h"
#define FF_DEVICE inline
#endif

// What puts kernels in order runs on the host, unless a whole op is one kernel (csrc/tensorrt).
#if defined(FF_ONE_BLOCK)
#define FF_SCHEDULE __device__
#else
#define FF_SCHEDULE
#endif

namespace fastface {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;
constexpr std::int64_t kMostBlocks = 0x7fffffff;

#if !defined(__CUDACC__)
// 0: ascending; 1: descending; others: some other order.
int emulated_order();
void set_emulated_order(int order);

// The i-th of n in that order.
std::int64_t emulated_turn(std::int64_t i, std::int64_t n);

// Whether a stream's work is put off until somebody waits for it, and puts it off.
bool emulated_lazy();
Status emulated_put_off(Stream stream, std::function<void()> work);
#endif

inline namespace FF_ISA {

constexpr int kReducedWords = 8;

// T of 4-byte words as an array of them.
template <class T>
struct Words {
  static_assert(sizeof(T) % 4 == 0 && sizeof(T) / 4 <= kReducedWords, "a reduction is of a few words");
  static constexpr int kCount = sizeof(T) / 4;
};

struct Block {
  int index;
  int threads;
  std::uint32_t* scratch;  // kReducedWords for each warp

#if defined(__CUDACC__)
  // body(i) for i in [0, count), shared out over the threads.
  template <class Body>
  FF_DEVICE void each(int count, Body&& body) const {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) body(i);
    __syncthreads();
  }

  // body(y, x) for all of height x width: warps take rows, lanes take columns.
  template <class Body>
  FF_DEVICE void each(int height, int width, Body&& body) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    for (int y = warp; y < height; y += threads / kWarp)
      for (int x = lane; x < width; x += kWarp) body(y, x);
    __syncthreads();
  }

  // The same, and what the calls add up in their first argument. T has add(T) and `start` adds nothing. Which thread
  // adds what, and in which order, is fixed by the number of threads.
  template <class T, class Body>
  FF_DEVICE T reduce(int height, int width, T start, Body&& body) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    T sum = start;
    for (int y = warp; y < height; y += threads / kWarp)
      for (int x = lane; x < width; x += kWarp) body(sum, y, x);
    fold_warp(sum);
    if (lane == 0) put(warp, sum);
    __syncthreads();
    if (warp == 0) {
      sum = start;
      if (lane < threads / kWarp) get(lane, sum);
      fold_warp(sum);
      __syncwarp();
      if (lane == 0) put(0, sum);
    }
    __syncthreads();
    get(0, sum);
    __syncthreads();
    return sum;
  }

 private:
  template <class T>
  static FF_DEVICE void fold_warp(T& sum) {
    for (int step = kWarp / 2; step > 0; step /= 2) {
      std::uint32_t words[Words<T>::kCount];
      memcpy(words, &sum, sizeof(T));
#pragma unroll
      for (int i = 0; i < Words<T>::kCount; ++i) words[i] = __shfl_down_sync(0xffffffffu, words[i], step);
      T other;
      memcpy(&other, words, sizeof(T));
      sum.add(other);
    }
  }
  template <class T>
  FF_DEVICE void put(int slot, const T& value) const {
    memcpy(scratch + slot * kReducedWords, &value, sizeof(T));
  }
  template <class T>
  FF_DEVICE void get(int slot, T& value) const {
    memcpy(&value, scratch + slot * kReducedWords, sizeof(T));
  }
#else
  template <class Body>
  void each(int count, Body&& body) const {
    for (int t = 0; t < threads; ++t) {
      const std::int64_t thread = emulated_turn(t, threads);
      watch::run_thread(static_cast<int>(thread));
      for (std::int64_t i = thread; i < count; i += threads) body(static_cast<int>(i));
    }
    watch::barrier();
  }

  template <class Body>
  void each(int height, int width, Body&& body) const {
    for (int t = 0; t < threads; ++t) walk(static_cast<int>(emulated_turn(t, threads)), height, width, body);
    watch::barrier();
  }

  template <class T, class Body>
  T reduce(int height, int width, T start, Body&& body) const {
    T sums[kMostThreads];
    for (int t = 0; t < threads; ++t) {
      const int thread = static_cast<int>(emulated_turn(t, threads));
      sums[thread] = start;
      walk(thread, height, width, [&](int y, int x) { body(sums[thread], y, x); });
    }
    watch::barrier();
    const int warps = threads / kWarp;
    T by_warp[kWarp];
    for (int warp = 0; warp < kWarp; ++warp) by_warp[warp] = warp < warps ? fold_warp(sums + warp * kWarp) : start;
    return fold_warp(by_warp);
  }

 private:
  template <class Body>
  void walk(int thread, int height, int width, Body&& body) const {
    watch::run_thread(thread);
    for (int y = thread / kWarp; y < height; y += threads / kWarp)
      for (int x = thread % kWarp; x < width; x += kWarp) body(y, x);
  }
  template <class T>
  static T fold_warp(T* lanes) {
    for (int step = kWarp / 2; step > 0; step /= 2)
      for (int lane = 0; lane < step; ++lane) lanes[lane].add(lanes[lane + step]);
    return lanes[0];
  }
#endif
};

// ---- what threads of different blocks, or of one, may do to one place in any order

FF_DEVICE void lower_to(unsigned long long* at, unsigned long long value) {
#if defined(__CUDACC__)
  atomicMin(at, value);
#else
  if (value < __atomic_load_n(at, __ATOMIC_RELAXED)) __atomic_store_n(at, value, __ATOMIC_RELAXED);
#endif
}

// The value before.
FF_DEVICE int count_up(int* at) {
#if defined(__CUDACC__)
  return atomicAdd(at, 1);
#else
  const int before = __atomic_load_n(at, __ATOMIC_RELAXED);
  __atomic_store_n(at, before + 1, __ATOMIC_RELAXED);
  return before;
#endif
}

// ---- launching

#if defined(FF_ONE_BLOCK)

// Not launched but taken by the block that runs already, step by step.
template <class Kernel>
FF_SCHEDULE Status launch(Stream, std::int64_t blocks, const Kernel& kernel) {
  __shared__ typename Kernel::Shared shared;
  __shared__ std::uint32_t scratch[kMostThreads / kWarp * kReducedWords];
  __syncthreads();
  for (std::int64_t b = 0; b < blocks; ++b) {
    kernel(Block{static_cast<int>(b), static_cast<int>(blockDim.x), scratch}, shared);
    __syncthreads();
  }
  return Status::kOk;
}

FF_SCHEDULE inline Status fill_bytes(Stream, void* at, int value, std::int64_t bytes) {
  for (std::int64_t i = threadIdx.x; i < bytes; i += blockDim.x)
    static_cast<unsigned char*>(at)[i] = static_cast<unsigned char>(value);
  __syncthreads();
  return Status::kOk;
}

#elif defined(__CUDACC__)

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlocksPerCore) enter(const __grid_constant__ Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  __shared__ std::uint32_t scratch[kMostThreads / kWarp * kReducedWords];
  kernel(Block{static_cast<int>(blockIdx.x), Kernel::kThreads, scratch}, shared);
}

template <class Kernel>
Status launch(Stream stream, std::int64_t blocks, const Kernel& kernel) {
  if (blocks == 0) return Status::kOk;
  if (blocks > kMostBlocks) return Status::kLaunchFailed;
  enter<Kernel><<<static_cast<unsigned>(blocks), Kernel::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(kernel);
  return cudaPeekAtLastError() == cudaSuccess ? Status::kOk : Status::kLaunchFailed;
}

inline Status fill_bytes(Stream stream, void* at, int value, std::int64_t bytes) {
  if (bytes == 0) return Status::kOk;
  const cudaError_t error =
      cudaMemsetAsync(at, value, static_cast<std::size_t>(bytes), static_cast<cudaStream_t>(stream));
  return error == cudaSuccess ? Status::kOk : Status::kLaunchFailed;
}

#else

constexpr std::size_t kMostParameters = 4096;  // bytes
constexpr std::size_t kMostShared = 48 * 1024;  // of a block, without asking for more
constexpr int kMostRegisters = 65536, kLeastRegisters = 32;

template <class Work>
Status emulate(Stream stream, Work&& work) {
  if (emulated_lazy()) return emulated_put_off(stream, std::forward<Work>(work));
  work();
  return Status::kOk;
}

template <class Kernel>
void run_blocks(std::int64_t blocks, const Kernel& kernel) {
  watch::begin_launch(__PRETTY_FUNCTION__);
  std::uint32_t scratch[1];
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t index = emulated_turn(b, blocks);
    typename Kernel::Shared shared;
    std::memset(static_cast<void*>(&shared), 0xff, sizeof(shared));
    watch::begin_block(index, &shared, sizeof(shared));
    kernel(Block{static_cast<int>(index), Kernel::kThreads, scratch}, shared);
    watch::end_block();
  }
  watch::end_launch();
}

template <class Kernel>
Status launch(Stream stream, std::int64_t blocks, const Kernel& kernel) {
  static_assert(Kernel::kThreads % kWarp == 0 && Kernel::kThreads <= kMostThreads, "whole warps");
  static_assert(sizeof(Kernel) <= kMostParameters, "more parameters than a launch takes");
  static_assert(std::is_trivially_copyable<Kernel>::value, "parameters are copied byte by byte");
  static_assert(sizeof(typename Kernel::Shared) + kMostThreads / kWarp * kReducedWords * 4 <= kMostShared,
                "more shared memory than every GPU has");
  static_assert(Kernel::kThreads * Kernel::kBlocksPerCore * kLeastRegisters <= kMostRegisters, "too few registers");
  static_assert(Kernel::kThreads * Kernel::kBlocksPerCore <= 1024, "more threads than a multiprocessor of sm_75 has");
  if (blocks < 0 || blocks > kMostBlocks) return Status::kLaunchFailed;
  return blocks == 0 ? Status::kOk : emulate(stream, [blocks, kernel] { run_blocks(blocks, kernel); });
}

inline Status fill_bytes(Stream stream, void* at, int value, std::int64_t bytes) {
  if (bytes <= 0) return Status::kOk;
  return emulate(stream, [=] {
    std::memset(at, value, static_cast<std::size_t>(bytes));
    watch::fill(at, static_cast<std::size_t>(bytes));
  });
}

#endif

// body(frame, i) by a thread of its own, for i in [0, count) in each frame.
template <class Body>
struct ForEach {
  static constexpr int kThreads = 256, kBlocksPerCore = 4;
  struct Shared {};
  Body body;
  int count, pieces;

  FF_DEVICE void operator()(const Block& block, Shared&) const {
    const int frame = block.index / pieces, first = block.index % pieces * kThreads, left = count - first;
    block.each(left < kThreads ? left : kThreads, [&](int i) { body(frame, first + i); });
  }
};

template <class Body>
FF_SCHEDULE Status for_each(Stream stream, std::int64_t frames, std::int64_t count, const Body& body) {
  constexpr int kThreads = ForEach<Body>::kThreads;
  if (count == 0) return Status::kOk;
  if (count > kMostBlocks - kThreads) return Status::kLaunchFailed;
  const std::int64_t pieces = (count + kThreads - 1) / kThreads;
  return launch(stream, frames * pieces, ForEach<Body>{body, static_cast<int>(count), static_cast<int>(pieces)});
}

}  // namespace FF_ISA
}  // namespace fastface
