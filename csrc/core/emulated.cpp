// The devices' schedules, compiled by the host's compiler. See core/launch.h.
#include <atomic>
#include <chrono>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <numeric>

#include "core/emulated_streams.h"
#include "core/launch.h"
#include "core/runtime.h"

namespace fastface {
namespace {

std::atomic<int> chosen_order{0};

// Never destroyed: streams of objects that outlive this file's may still come to an end.
EmulatedStreams& streams() {
  static auto* all = new EmulatedStreams;
  return *all;
}

}  // namespace

int emulated_order() { return chosen_order.load(std::memory_order_relaxed); }

void set_emulated_order(int order) { chosen_order.store(order, std::memory_order_relaxed); }

bool emulated_lazy() { return streams().lazy(); }

void set_emulated_lazy(bool lazy) { streams().set_lazy(lazy); }

Status emulated_put_off(Stream stream, std::function<void()> work) {
  streams().put_off(stream, std::move(work));
  return Status::kOk;
}

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

// Everything has happened when a call returns, unless work is put off. Then it can be captured too; where it is not, calls
// must be repeated instead.
class EmulatedRuntime final : public Runtime {
 public:
  const char* kind() const override { return "emulated"; }
  const DeviceTable& table() const override { return kDeviceTable; }
  int dlpack_type() const override { return 1; }  // kDLCPU
  std::string name() override { return "emulated device"; }
  std::string error() override { return "out of memory, or not to be done during a capture"; }

  int enter() override { return 0; }
  void leave(int) override {}

  void* allocate(std::int64_t bytes) override {
    void* memory = streams().may_allocate() ? allocate_pinned(bytes) : nullptr;
    if (memory != nullptr) std::memset(memory, 0xff, static_cast<std::size_t>(bytes));  // NaN all over
    if (memory != nullptr) note(device_memory_, memory, bytes);
    return memory;
  }
  void release(void* memory) override {
    static_cast<void>(streams().may_allocate());
    forget(device_memory_, memory);
    ::operator delete(memory, std::align_val_t{kWorkspaceAlignment});
  }
  void* allocate_pinned(std::int64_t bytes) override {
    return ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{kWorkspaceAlignment}, std::nothrow);
  }
  void release_pinned(void* memory) override { ::operator delete(memory, std::align_val_t{kWorkspaceAlignment}); }

  bool copy(void* to, const void* from, std::int64_t count, Stream stream) override {
    if (count <= 0) return true;
    const auto bytes = static_cast<std::size_t>(count);
    if (!emulated_lazy()) {
      std::memcpy(to, from, bytes);
      return true;
    }
    // From the host's memory at once, by way of the driver's; into it before the call returns.
    if (!on_device(from)) {
      const auto* host = static_cast<const unsigned char*>(from);
      streams().put_off(stream, [to, staged = std::vector<unsigned char>(host, host + bytes)] {
        std::memcpy(to, staged.data(), staged.size());
      });
      return true;
    }
    streams().put_off(stream, [=] { std::memcpy(to, from, bytes); });
    return on_device(to) || streams().wait(stream);
  }
  bool wait(Stream stream) override { return streams().wait(stream); }
  bool follow(Stream later, Stream earlier) override { return !emulated_lazy() || streams().follow(later, earlier); }
  bool make_stream(Stream& stream) override {
    stream = streams().make();
    return true;
  }
  void drop_stream(Stream stream) override { streams().drop(stream); }

  bool can_capture() override { return emulated_lazy(); }
  bool begin_capture(Stream stream) override { return streams().begin_capture(stream); }
  void* end_capture(Stream stream) override { return streams().end_capture(stream).release(); }
  bool replay(void* graph, Stream stream) override {
    streams().replay(*static_cast<EmulatedStreams::Graph*>(graph), stream);
    if (!emulated_lazy()) streams().wait(stream);
    return true;
  }
  void drop_graph(void* graph) override { delete static_cast<EmulatedStreams::Graph*>(graph); }

  void* mark(Stream stream) override { return new (std::nothrow) Mark{Clock::now(), streams().until_now(stream)}; }
  void drop_mark(void* mark) override { delete static_cast<Mark*>(mark); }
  double elapsed_ms(void* from, void* to) override {
    static_cast<Mark*>(to)->reach();
    const auto time = static_cast<Mark*>(to)->time - static_cast<Mark*>(from)->time;
    return std::chrono::duration<double, std::milli>(time).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Ranges = std::map<const unsigned char*, std::int64_t>;
  struct Mark {
    Clock::time_point time;
    EmulatedStreams::Work reach;
  };

  void note(Ranges& ranges, void* memory, std::int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ranges[static_cast<const unsigned char*>(memory)] = bytes;
  }
  void forget(Ranges& ranges, void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ranges.erase(static_cast<const unsigned char*>(memory));
  }
  bool on_device(const void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto* at = static_cast<const unsigned char*>(memory);
    const auto next = device_memory_.upper_bound(at);
    return next != device_memory_.begin() && at < std::prev(next)->first + std::prev(next)->second;
  }

  std::mutex mutex_;
  Ranges device_memory_;
};

}  // namespace

Runtime& emulated_runtime() {
  static auto* runtime = new EmulatedRuntime;
  return *runtime;
}

}  // namespace fastface
