// A small persistent thread pool. Tasks are independent and indexed, so results cannot depend on who runs them.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace fastface {

using TaskFunction = void (*)(void* context, std::int64_t index) noexcept;

// Runs task(context, i) for every i in [0, count) on at most `threads` threads, the caller among them, and returns
// when all are done. A call made while another one is running (from a second Python thread, or from a task) runs
// on the caller alone. Safe after fork: the child starts with a pool of its own.
void parallel_run(std::int64_t count, int threads, TaskFunction task, void* context) noexcept;

// Threads that a program has already: while this lives, what the thread that made it calls parallel_run for goes to
// run(host, strands, strand, argument), which calls strand(argument, i) for every i in [0, strands) on whichever of its
// threads it likes and returns when all are done.
class HostThreads {
 public:
  using Run = void (*)(void* host, std::int64_t strands, TaskFunction strand, void* argument) noexcept;
  HostThreads(Run run, void* host) noexcept;
  HostThreads(const HostThreads&) = delete;
  HostThreads& operator=(const HostThreads&) = delete;
  ~HostThreads();

  Run run;
  void* host;

 private:
  const HostThreads* outer_;
};

inline namespace FF_ISA {

template <class Body>
FF_INLINE void parallel_for(std::int64_t count, int threads, Body&& body) {
  if (threads <= 1 || count <= 1) {
    for (std::int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  auto* context = &body;
  using Pointer = decltype(context);
  parallel_run(
      count, threads, [](void* raw, std::int64_t index) noexcept { (*static_cast<Pointer>(raw))(index); }, context);
}

FF_INLINE std::int64_t pieces(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

template <class Body>
FF_INLINE void do_piece(std::int64_t piece, std::int64_t count, std::int64_t size, Body&& body) {
  const std::int64_t end = (piece + 1) * size;
  body(piece * size, end < count ? end : count);
}

// body(begin, end) for [0, count) in pieces of `size`.
template <class Body>
FF_INLINE void in_pieces(std::int64_t count, std::int64_t size, int threads, Body&& body) {
  parallel_for(pieces(count, size), threads, [&](std::int64_t piece) { do_piece(piece, count, size, body); });
}

// Two such jobs at once: threads meet half as often.
template <class First, class Second>
FF_INLINE void in_pieces(std::int64_t first_count, std::int64_t second_count, std::int64_t size, int threads,
                         First&& first, Second&& second) {
  const std::int64_t split = pieces(first_count, size);
  parallel_for(split + pieces(second_count, size), threads, [&](std::int64_t piece) {
    if (piece < split) {
      do_piece(piece, first_count, size, first);
    } else {
      do_piece(piece - split, second_count, size, second);
    }
  });
}

}  // namespace FF_ISA
}  // namespace fastface
