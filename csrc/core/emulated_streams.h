// Streams of the emulated device that put work off as long as anybody may: it is done when somebody waits for it, and
// then no more of it than he waits for. Who forgets to wait finds old memory, where a GPU might have been quick enough.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/stream.h"

namespace fastface {

class EmulatedStreams {
 public:
  using Work = std::function<void()>;
  using Graph = std::vector<Work>;

  bool lazy() const { return lazy_; }
  void set_lazy(bool lazy) {
    const Lock lock(mutex_);
    for (auto& [stream, queue] : queues_) run(*queue, queue->given);
    lazy_ = lazy;
  }

  Stream make() {
    const Lock lock(mutex_);
    const auto stream = reinterpret_cast<Stream>(++made_ << 4);
    queues_[stream] = std::make_shared<Queue>();
    return stream;
  }
  void drop(Stream stream) {
    const Lock lock(mutex_);
    run(of(stream), of(stream).given);
    if (stream != nullptr) queues_.erase(stream);
  }

  void put_off(Stream stream, Work work) {
    const Lock lock(mutex_);
    Queue& queue = of(stream);
    if (queue.captured != nullptr) {
      queue.captured->push_back(std::move(work));
    } else {
      queue.work.push_back(std::move(work));
      ++queue.given;
    }
  }

  // False where a GPU would refuse: what is being captured cannot be waited for, nor wait for what is not.
  bool wait(Stream stream) {
    const Lock lock(mutex_);
    if (of(stream).captured != nullptr) return false;
    run(of(stream), of(stream).given);
    return true;
  }
  bool follow(Stream later, Stream earlier) {
    const Lock lock(mutex_);
    const std::shared_ptr<Queue> first = shared(earlier);
    if (first->captured != nullptr || of(later).captured != nullptr) return later == earlier;
    const long end = first->given;
    put_off(later, [this, first, end] { run(*first, end); });
    return true;
  }

  // For a moment on the stream: does what comes before it.
  Work until_now(Stream stream) {
    const Lock lock(mutex_);
    const std::shared_ptr<Queue> queue = shared(stream);
    return [this, queue, end = queue->given] {
      const Lock again(mutex_);
      run(*queue, end);
    };
  }

  bool begin_capture(Stream stream) {
    const Lock lock(mutex_);
    if (!lazy_ || stream == nullptr || of(stream).captured != nullptr) return false;
    of(stream).captured = std::make_unique<Graph>();
    spoilt_[std::this_thread::get_id()] = false;
    return true;
  }
  std::unique_ptr<Graph> end_capture(Stream stream) {
    const Lock lock(mutex_);
    std::unique_ptr<Graph> graph = std::move(of(stream).captured);
    const auto capture = spoilt_.extract(std::this_thread::get_id());
    return capture.empty() || capture.mapped() ? nullptr : std::move(graph);
  }
  void replay(const Graph& graph, Stream stream) {
    const Lock lock(mutex_);
    for (const Work& work : graph) put_off(stream, work);
  }
  // Giving or taking memory spoils what the same thread captures.
  bool may_allocate() {
    const Lock lock(mutex_);
    const auto capture = spoilt_.find(std::this_thread::get_id());
    if (capture == spoilt_.end()) return true;
    capture->second = true;
    return false;
  }

 private:
  struct Queue {
    std::deque<Work> work;
    long given = 0, done = 0;
    std::unique_ptr<Graph> captured;
  };
  using Lock = std::lock_guard<std::recursive_mutex>;

  // Handles that are not ours are taken for the default stream.
  std::shared_ptr<Queue> shared(Stream stream) {
    const auto found = queues_.find(stream);
    if (found != queues_.end()) return found->second;
    std::shared_ptr<Queue>& standard = queues_[nullptr];
    if (standard == nullptr) standard = std::make_shared<Queue>();
    return standard;
  }
  Queue& of(Stream stream) { return *shared(stream); }

  static void run(Queue& queue, long end) {
    while (queue.done < end) {
      const Work work = std::move(queue.work.front());
      queue.work.pop_front();
      ++queue.done;
      work();
    }
  }

  std::recursive_mutex mutex_;
  std::map<Stream, std::shared_ptr<Queue>> queues_;
  std::uintptr_t made_ = 0;
  std::map<std::thread::id, bool> spoilt_;  // of those who capture
  std::atomic<bool> lazy_{false};
};

}  // namespace fastface
