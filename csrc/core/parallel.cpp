#include "core/parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define FF_HAS_FORK 1
#endif

namespace fastface {
namespace {

constexpr int kMaxWorkers = 255;
// How long a waiting thread holds on to its core: longer than Python takes from one op of a frame to the next.
constexpr std::chrono::microseconds kPatience(50);

FF_INLINE void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until ready() or until patience ends; returns what ready() said last.
template <class Ready>
bool spin_until(Ready ready) noexcept {
  constexpr int kLooksPerClock = 32;
  const auto end = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

class Pool {
 public:
  bool try_run(std::int64_t count, int threads, TaskFunction task, void* context) noexcept {
    if (!caller_mutex_.try_lock()) return false;
    const std::lock_guard<std::mutex> guard(caller_mutex_, std::adopt_lock);
    const int wanted = static_cast<int>(count - 1 < threads - 1 ? count - 1 : threads - 1);
    grow(wanted);
    task_.store(task, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    count_.store(static_cast<std::uint32_t>(count), std::memory_order_relaxed);
    invited_.store(wanted, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const std::uint32_t generation = static_cast<std::uint32_t>(ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(static_cast<std::uint64_t>(generation) << 32);
    if (sleepers_.load() > 0) {
      {
        const std::lock_guard<std::mutex> lock(sleep_mutex_);
      }
      wake_.notify_all();
    }
    work(generation);
    const auto all_done = [&] { return done_.load(std::memory_order_acquire) == static_cast<std::uint32_t>(count); };
    while (!spin_until(all_done)) std::this_thread::yield();
    return true;
  }

 private:
  // One word holds the job's generation and its next index, so that a worker left over from the last job can never
  // take an index of the next one.
  void work(std::uint32_t generation) noexcept {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      if (static_cast<std::uint32_t>(ticket >> 32) != generation) return;
      const TaskFunction task = task_.load(std::memory_order_relaxed);
      void* const context = context_.load(std::memory_order_relaxed);
      const std::uint32_t index = static_cast<std::uint32_t>(ticket);
      if (index >= count_.load(std::memory_order_relaxed)) return;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        continue;
      }
      task(context, index);
      done_.fetch_add(1, std::memory_order_acq_rel);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void worker_loop(int id, std::uint32_t seen) noexcept {
    for (;;) {
      const auto called = [&] { return generation() != seen; };
      if (!spin_until(called)) {
        std::unique_lock<std::mutex> lock(sleep_mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, called);
        sleepers_.fetch_sub(1);
      }
      seen = generation();
      if (id < invited_.load(std::memory_order_relaxed)) work(seen);
    }
  }

  std::uint32_t generation() const noexcept { return static_cast<std::uint32_t>(ticket_.load() >> 32); }

  void grow(int wanted) noexcept {
    if (wanted > kMaxWorkers) wanted = kMaxWorkers;
    for (; workers_ < wanted; ++workers_) {
      try {
        std::thread(&Pool::worker_loop, this, workers_, generation()).detach();
      } catch (const std::system_error&) {
        return;  // no more threads to be had: the ones that exist do the work
      }
    }
  }

  std::mutex caller_mutex_;
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  int workers_ = 0;
  std::atomic<int> sleepers_{0};
  std::atomic<TaskFunction> task_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<std::uint32_t> count_{0};
  std::atomic<int> invited_{0};
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::uint32_t> done_{0};
};

// Never destroyed: its detached threads may outlive static destruction.
std::atomic<Pool*> shared_pool{nullptr};

Pool* acquire_pool() noexcept {
  Pool* pool = shared_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return pool;
  Pool* fresh = new (std::nothrow) Pool;
  if (fresh == nullptr) return nullptr;
  if (shared_pool.compare_exchange_strong(pool, fresh)) {
#ifdef FF_HAS_FORK
    // The child has none of its parent's threads: it forgets the pool and makes a new one when it needs one.
    static std::once_flag registered;
    std::call_once(registered, [] { pthread_atfork(nullptr, nullptr, [] { shared_pool.store(nullptr); }); });
#endif
    return fresh;
  }
  delete fresh;
  return pool;
}

thread_local const HostThreads* lent = nullptr;

// As many strands as threads are wanted; each takes the next task until none is left.
void run_on(const HostThreads& host, std::int64_t count, int threads, TaskFunction task, void* context) noexcept {
  struct Job {
    std::int64_t count;
    TaskFunction task;
    void* context;
    std::atomic<std::int64_t> next{0};
  } job{count, task, context};
  host.run(
      host.host, count < threads ? count : threads,
      [](void* raw, std::int64_t) noexcept {
        Job& job = *static_cast<Job*>(raw);
        for (std::int64_t i; (i = job.next.fetch_add(1, std::memory_order_relaxed)) < job.count;) job.task(job.context, i);
      },
      &job);
}

}  // namespace

HostThreads::HostThreads(Run run_, void* host_) noexcept : run(run_), host(host_), outer_(lent) { lent = this; }
HostThreads::~HostThreads() { lent = outer_; }

void parallel_run(std::int64_t count, int threads, TaskFunction task, void* context) noexcept {
  if (lent != nullptr && threads > 1 && count > 1) {
    run_on(*lent, count, threads, task, context);
    return;
  }
  if (threads > 1 && count > 1 && count <= INT32_MAX) {
    Pool* pool = acquire_pool();
    if (pool != nullptr && pool->try_run(count, threads, task, context)) return;
  }
  for (std::int64_t i = 0; i < count; ++i) task(context, i);
}

}  // namespace fastface
