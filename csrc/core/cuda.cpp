// CUDA's runtime behind core/runtime.h, linked statically: the library loads where there is no GPU and no driver.
#include <cuda_runtime_api.h>

#include "core/runtime.h"
#include "ops/device_table.h"

namespace fastface {
namespace {

thread_local cudaError_t last_error = cudaSuccess;

bool done(cudaError_t error) {
  if (error == cudaSuccess) return true;
  last_error = error;
  static_cast<void>(cudaGetLastError());  // so that it is not taken for a later call's
  return false;
}

std::string version_words(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The runtime says the same of no driver and of an old one.
std::string driver_words() {
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  if (driver == 0) return "no NVIDIA driver";
  return "the driver is for CUDA " + version_words(driver) + ", these kernels want " + version_words(CUDART_VERSION) +
         ": update it, or build fastface with an older CUDA compiler";
}

cudaStream_t native(Stream stream) { return static_cast<cudaStream_t>(stream); }

class CudaRuntime final : public Runtime {
 public:
  const char* kind() const override { return "cuda"; }
  const DeviceTable& table() const override { return kDeviceTable; }
  int dlpack_type() const override { return 2; }  // kDLCUDA

  std::string name() override {
    int count = 0;
    cudaDeviceProp properties;
    if (!done(cudaGetDeviceCount(&count)) || count == 0 || !done(cudaGetDeviceProperties(&properties, 0))) return "";
    return properties.name;
  }
  std::string error() override {
    const cudaError_t pending = cudaGetLastError(), wrong = pending != cudaSuccess ? pending : last_error;
    return wrong == cudaErrorInsufficientDriver ? driver_words() : cudaGetErrorString(wrong);
  }

  int enter() override {
    int before = 0;
    if (done(cudaGetDevice(&before)) && before != 0) done(cudaSetDevice(0));
    return before;
  }
  void leave(int before) override {
    if (before != 0) done(cudaSetDevice(before));
  }

  void* allocate(std::int64_t bytes) override {
    void* memory = nullptr;
    return done(cudaMalloc(&memory, static_cast<std::size_t>(bytes))) ? memory : nullptr;
  }
  void release(void* memory) override { done(cudaFree(memory)); }
  void* allocate_pinned(std::int64_t bytes) override {
    void* memory = nullptr;
    return done(cudaMallocHost(&memory, static_cast<std::size_t>(bytes))) ? memory : nullptr;
  }
  void release_pinned(void* memory) override { done(cudaFreeHost(memory)); }

  bool copy(void* to, const void* from, std::int64_t bytes, Stream stream) override {
    return bytes == 0 ||
           done(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, native(stream)));
  }
  bool wait(Stream stream) override { return done(cudaStreamSynchronize(native(stream))); }
  bool follow(Stream later, Stream earlier) override {
    cudaEvent_t event;
    if (!done(cudaEventCreateWithFlags(&event, cudaEventDisableTiming))) return false;
    const bool ordered =
        done(cudaEventRecord(event, native(earlier))) && done(cudaStreamWaitEvent(native(later), event, 0));
    return done(cudaEventDestroy(event)) && ordered;
  }
  bool make_stream(Stream& stream) override {
    cudaStream_t made;
    if (!done(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking))) return false;
    stream = made;
    return true;
  }
  void drop_stream(Stream stream) override { done(cudaStreamDestroy(native(stream))); }

  bool can_capture() override { return true; }
  bool begin_capture(Stream stream) override {
    return done(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeThreadLocal));
  }
  void* end_capture(Stream stream) override {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    if (!done(cudaStreamEndCapture(native(stream), &graph)) || graph == nullptr) return nullptr;
    const bool made = done(cudaGraphInstantiateWithFlags(&ready, graph, 0));
    done(cudaGraphDestroy(graph));
    return made ? ready : nullptr;
  }
  bool replay(void* graph, Stream stream) override {
    return done(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), native(stream)));
  }
  void drop_graph(void* graph) override { done(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph))); }

  void* mark(Stream stream) override {
    cudaEvent_t event = nullptr;
    if (!done(cudaEventCreate(&event))) return nullptr;
    if (done(cudaEventRecord(event, native(stream)))) return event;
    drop_mark(event);
    return nullptr;
  }
  void drop_mark(void* mark) override { done(cudaEventDestroy(static_cast<cudaEvent_t>(mark))); }
  double elapsed_ms(void* from, void* to) override {
    float ms = -1.0f;
    if (!done(cudaEventSynchronize(static_cast<cudaEvent_t>(to)))) return -1.0;
    return done(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to)))
               ? static_cast<double>(ms)
               : -1.0;
  }
};

}  // namespace

const DeviceTable* cuda_table() { return &kDeviceTable; }

Runtime* cuda_runtime() {
  static CudaRuntime runtime;
  return &runtime;
}

}  // namespace fastface
