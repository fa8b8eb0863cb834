// The devices' schedules, compiled by the host's compiler. See core/launch.h.
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <numeric>

#include "core/launch.h"
#include "core/runtime.h"

namespace fastface {
namespace {

std::atomic<int> chosen_order{0};

}  // namespace

int emulated_order() { return chosen_order.load(std::memory_order_relaxed); }

void set_emulated_order(int order) { chosen_order.store(order, std::memory_order_relaxed); }

std::int64_t emulated_turn(std::int64_t i, std::int64_t n) {
  const int order = emulated_order();
  if (order == 0) return i;
  if (order == 1) return n - 1 - i;
  std::int64_t stride = 2 * (n / 3) + order;
  while (std::gcd(stride, n) != 1) ++stride;
  return (i * stride + order) % n;
}

}  // namespace fastface

#include "ops/blend.cu"
#include "ops/deform.cu"
#include "ops/device_table.h"
#include "ops/frame.cu"
#include "ops/rasterize.cu"
#include "ops/shade.cu"

namespace fastface {

const DeviceTable& emulated_table() { return kDeviceTable; }

namespace {

// Everything has happened when a call returns. A graph cannot be captured: calls must be repeated instead.
class EmulatedRuntime final : public Runtime {
 public:
  const char* kind() const override { return "emulated"; }
  const DeviceTable& table() const override { return kDeviceTable; }
  int dlpack_type() const override { return 1; }  // kDLCPU
  std::string name() override { return "emulated device"; }
  std::string error() override { return "out of memory"; }

  int enter() override { return 0; }
  void leave(int) override {}

  void* allocate(std::int64_t bytes) override {
    void* memory = ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{kWorkspaceAlignment}, std::nothrow);
    if (memory != nullptr) std::memset(memory, 0xff, static_cast<std::size_t>(bytes));  // NaN all over
    return memory;
  }
  void release(void* memory) override { ::operator delete(memory, std::align_val_t{kWorkspaceAlignment}); }
  void* allocate_pinned(std::int64_t bytes) override { return allocate(bytes); }
  void release_pinned(void* memory) override { release(memory); }

  bool copy(void* to, const void* from, std::int64_t bytes, Stream) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return true;
  }
  bool wait(Stream) override { return true; }
  bool follow(Stream, Stream) override { return true; }
  bool make_stream(Stream& stream) override {
    stream = nullptr;
    return true;
  }
  void drop_stream(Stream) override {}

  bool begin_capture(Stream) override { return false; }
  void* end_capture(Stream) override { return nullptr; }
  bool replay(void*, Stream) override { return false; }
  void drop_graph(void*) override {}

  void* mark(Stream) override { return new (std::nothrow) Clock::time_point(Clock::now()); }
  void drop_mark(void* mark) override { delete static_cast<Clock::time_point*>(mark); }
  double elapsed_ms(void* from, void* to) override {
    const auto time = *static_cast<Clock::time_point*>(to) - *static_cast<Clock::time_point*>(from);
    return std::chrono::duration<double, std::milli>(time).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
};

}  // namespace

Runtime& emulated_runtime() {
  static EmulatedRuntime runtime;
  return runtime;
}

}  // namespace fastface
