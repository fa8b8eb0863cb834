// What a device offers besides kernels: memory, streams, captured graphs, clocks. For the adapters; kernels know nothing
// of it. Nothing throws; what fails returns null or false, and `error` says why.
#pragma once

#include <cstdint>
#include <string>

#include "core/stream.h"

namespace fastface {

struct DeviceTable;

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual const char* kind() const = 0;  // "cuda", "emulated"
  virtual const DeviceTable& table() const = 0;
  virtual int dlpack_type() const = 0;  // DLDeviceType of its memory
  virtual std::string name() = 0;       // of the device; empty where there is none
  virtual std::string error() = 0;      // of the last call that failed in this thread

  // Around every call of the others and every launch: makes the device the thread's own and restores what was.
  virtual int enter() = 0;
  virtual void leave(int before) = 0;

  virtual void* allocate(std::int64_t bytes) = 0;
  virtual void release(void* memory) = 0;
  // Host memory that copies to and from the device need not stage.
  virtual void* allocate_pinned(std::int64_t bytes) = 0;
  virtual void release_pinned(void* memory) = 0;

  virtual bool copy(void* to, const void* from, std::int64_t bytes, Stream stream) = 0;  // in any direction
  virtual bool wait(Stream stream) = 0;
  virtual bool follow(Stream later, Stream earlier) = 0;  // what comes next in one waits for what is in the other
  virtual bool make_stream(Stream& stream) = 0;           // one that does not wait for the default stream
  virtual void drop_stream(Stream stream) = 0;

  virtual bool can_capture() = 0;
  virtual bool begin_capture(Stream stream) = 0;
  virtual void* end_capture(Stream stream) = 0;  // a graph
  virtual bool replay(void* graph, Stream stream) = 0;
  virtual void drop_graph(void* graph) = 0;

  virtual void* mark(Stream stream) = 0;  // a moment on the stream
  virtual void drop_mark(void* mark) = 0;
  virtual double elapsed_ms(void* from, void* to) = 0;  // waits for both; negative where it fails
};

Runtime& emulated_runtime();

// How the emulated device orders blocks and threads: 0 ascending, 1 descending, others some other way.
void set_emulated_order(int order);

// Whether it puts work off until somebody waits for it, as late as a GPU might do it. Work can be captured then.
void set_emulated_lazy(bool lazy);

// Null where the library was built without a CUDA compiler.
Runtime* cuda_runtime();

}  // namespace fastface
