// Where an operator's kernels compute: what runs an op there, with which memory and which threads.
#pragma once

#include <new>

#include "core/parallel.h"
#include "onnx/binding.h"

namespace fastface::onnx {

// Workspace from the session's own allocator, which keeps it between calls.
class Scratch {
 public:
  // With a context, memory that belongs to its stream.
  Scratch(Allocator* allocator, std::int64_t bytes, const KernelContext* on_stream = nullptr) : allocator_(allocator) {
    if (bytes <= 0) return;
    const auto room = static_cast<std::size_t>(bytes + kWorkspaceAlignment);
    if (on_stream == nullptr) {
      check(runtime.api(slot::allocate, allocator_, room, &memory_));
    } else {
      const MemoryInfo* info = nullptr;
      check(runtime.api(slot::allocator_info, static_cast<const Allocator*>(allocator_), &info));
      check(runtime.api(slot::stream_scratch, on_stream, info, room, &memory_));
    }
    if (memory_ == nullptr) throw std::bad_alloc();
    const auto at = (reinterpret_cast<std::uintptr_t>(memory_) + kWorkspaceAlignment - 1) / kWorkspaceAlignment;
    view_ = {reinterpret_cast<unsigned char*>(at * kWorkspaceAlignment), bytes};
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (memory_ == nullptr) return;
    if (Status* status = runtime.api(slot::free, allocator_, memory_)) runtime.api(slot::release_status, status);
  }
  WorkspaceView view() const { return view_; }

 private:
  Allocator* allocator_;
  void* memory_ = nullptr;
  WorkspaceView view_;
};

// Parallel loops of an op run on the session's own threads.
inline void run_on_session(void* context, std::int64_t strands, TaskFunction strand, void* argument) noexcept {
  struct Call {
    TaskFunction strand;
    void* argument;
  } call{strand, argument};
  Status* status = runtime.api(
      slot::parallel_for, static_cast<const KernelContext*>(context),
      static_cast<void (*)(void*, std::size_t)>([](void* raw, std::size_t index) {
        const Call& call = *static_cast<const Call*>(raw);
        call.strand(call.argument, static_cast<std::int64_t>(index));
      }),
      static_cast<std::size_t>(strands), std::size_t{0}, static_cast<void*>(&call));
  if (status == nullptr) return;
  runtime.api(slot::release_status, status);
  for (std::int64_t i = 0; i < strands; ++i) strand(argument, i);
}

struct OnCpu {
  static constexpr const char* kProvider = nullptr;  // the default one
  static constexpr bool kHostMemory = true;

  template <class Op>
  static fastface::Status run(Op& op, KernelContext* context, Allocator* allocator) {
    const Entry<Op>& entry = entry_of<Op>(op_table(runtime.isa));
    const Scratch scratch(allocator, entry.workspace_bytes(op));
    op.workspace = scratch.view();
    const HostThreads threads(&run_on_session, context);
    return entry.run(op);
  }
};

// On the session's stream. Workspace is taken from the stream's arena, so that what runs later on another stream cannot
// have it before this is done. Indices in arrays are taken on trust: they lie on the device.
struct OnCuda {
  static constexpr const char* kProvider = "CUDAExecutionProvider";
  static constexpr bool kHostMemory = false;

  template <class Op>
  static fastface::Status run(Op& op, KernelContext* context, Allocator* allocator) {
    const DeviceEntry<Op>& entry = entry_of<Op>(*cuda_table());
    void* stream = nullptr;
    check(runtime.api(slot::gpu_stream, static_cast<const KernelContext*>(context), &stream));
    const Scratch scratch(allocator, entry.workspace_bytes(op), context);
    op.workspace = scratch.view();
    return entry.run(op, stream);
  }
};

// The device's schedule on the host, for tests of everything around it.
struct OnEmulated {
  static constexpr const char* kProvider = nullptr;
  static constexpr bool kHostMemory = true;

  template <class Op>
  static fastface::Status run(Op& op, KernelContext*, Allocator* allocator) {
    const DeviceEntry<Op>& entry = entry_of<Op>(emulated_table());
    const Scratch scratch(allocator, entry.workspace_bytes(op));
    op.workspace = scratch.view();
    return entry.run(op, nullptr);
  }
};

}  // namespace fastface::onnx
