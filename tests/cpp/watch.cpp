// The watch of core/watch.h. The compiler calls __tsan_* before every access of an instrumented file; here each byte
// remembers who touched it last, and two threads that could meet are told apart from two that cannot: of one launch, and
// of different blocks or between the same two barriers of one block. Code between phases is every thread's.
#include "core/watch.h"

#include <pthread.h>

#include <cstdio>
#include <memory>
#include <unordered_map>

namespace fastface {
namespace watch {
namespace {

constexpr int kEveryThread = -1;

struct Moment {
  std::int64_t launch = 0, block = 0;
  int barrier = 0, thread = kEveryThread;
};

// Of reads, or of writes: the last one, and whether others that it does not stand for were of the same launch (another
// block) or phase (another thread).
struct Touched {
  Moment last;
  bool atomic = true, of_blocks = false, of_threads = false;

  bool meets(const Moment& now) const {
    if (last.launch != now.launch) return false;
    if (of_blocks || last.block != now.block) return true;
    return last.barrier == now.barrier && (of_threads || last.thread != now.thread);
  }
  void add(const Moment& now, bool is_atomic) {
    const bool same_launch = last.launch == now.launch, same_block = same_launch && last.block == now.block;
    const bool same_phase = same_block && last.barrier == now.barrier;
    of_blocks = same_launch && (of_blocks || !same_block);
    of_threads = same_phase && (of_threads || last.thread != now.thread);
    // Of several blocks' accesses none may count as atomic that is not; of a phase's neither.
    atomic = is_atomic && (atomic || !(same_phase || of_blocks));
    last = now;
  }
};

struct Byte {
  Touched read, write;
  bool undefined = false;
};

constexpr std::uintptr_t kPage = 1024;
struct Page {
  Byte byte[kPage];
};

std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages;
const unsigned char *shared_begin, *shared_end, *stack_begin, *stack_end;
const char* kernel_name = "";
Moment now;
bool in_kernel, hushed;
int found;

void find_stack() {
  pthread_attr_t attributes;
  void* begin = nullptr;
  std::size_t size = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &begin, &size);
  pthread_attr_destroy(&attributes);
  stack_begin = static_cast<const unsigned char*>(begin);
  stack_end = stack_begin + size;
}

Byte& byte_at(std::uintptr_t at) {
  std::unique_ptr<Page>& page = pages[at / kPage];
  if (page == nullptr) page = std::make_unique<Page>();
  return page->byte[at % kPage];
}

void tell(const char* what, const Moment& other, std::uintptr_t at, const void* code) {
  if (++found > 5 || hushed) return;
  std::fprintf(stderr, "%s at %p: block %lld thread %d after barrier %d, and block %lld thread %d after %d; code %p of %s\n",
               what, reinterpret_cast<void*>(at), static_cast<long long>(now.block), now.thread, now.barrier,
               static_cast<long long>(other.block), other.thread, other.barrier, code, kernel_name);
}

enum class Way { kRead, kWrite, kAtomicRead, kAtomicWrite };

void touch(const void* memory, std::size_t bytes, Way way, const void* code) {
  if (!in_kernel) return;
  const auto* begin = static_cast<const unsigned char*>(memory);
  const bool in_shared = begin >= shared_begin && begin < shared_end;
  if (!in_shared && begin >= stack_begin && begin < stack_end) return;  // a thread's own
  const auto first = reinterpret_cast<std::uintptr_t>(memory);
  if (bytes <= 16 && first % bytes != 0) tell("an address that is no multiple of its size", now, first, code);
  const bool writes = way == Way::kWrite || way == Way::kAtomicWrite;
  const bool atomic = way == Way::kAtomicRead || way == Way::kAtomicWrite;
  for (std::uintptr_t at = first; at < first + bytes; ++at) {
    Byte& byte = byte_at(at);
    if (!writes && byte.undefined) {
      tell("memory read that nothing was written to", now, at, code);
      byte.undefined = false;
    }
    if (byte.write.meets(now) && !(atomic && byte.write.atomic))
      tell(writes ? "two writes" : "a read and a write", byte.write.last, at, code);
    if (writes && byte.read.meets(now) && !(atomic && byte.read.atomic))
      tell("a write and a read", byte.read.last, at, code);
    if (writes && now.thread == kEveryThread) tell("a write by every thread", now, at, code);
    (writes ? byte.write : byte.read).add(now, atomic);
    if (writes) byte.undefined = false;
  }
}

void mark(const void* at, std::size_t bytes, bool undefined) {
  const auto first = reinterpret_cast<std::uintptr_t>(at);
  for (std::uintptr_t i = first; i < first + bytes; ++i) byte_at(i).undefined = undefined;
}

}  // namespace

void begin_launch(const char* kernel) {
  find_stack();
  kernel_name = kernel;
  ++now.launch;
}
void end_launch() { kernel_name = ""; }

void begin_block(std::int64_t index, const void* shared, std::size_t bytes) {
  now.block = index;
  now.barrier = 0;
  now.thread = kEveryThread;
  shared_begin = static_cast<const unsigned char*>(shared);
  shared_end = shared_begin + bytes;
  // Another block's lay at the same place.
  const auto first = reinterpret_cast<std::uintptr_t>(shared);
  for (std::uintptr_t at = first; at < first + bytes; ++at) byte_at(at) = Byte{};
  mark(shared, bytes, true);
  in_kernel = true;
}
void end_block() {
  in_kernel = false;
  mark(shared_begin, static_cast<std::size_t>(shared_end - shared_begin), false);
}
void run_thread(int index) { now.thread = index; }
void barrier() {
  ++now.barrier;
  now.thread = kEveryThread;
}
void fill(const void* at, std::size_t bytes) { mark(at, bytes, false); }

void undefined(const void* at, std::size_t bytes) { mark(at, bytes, true); }
void defined(const void* at, std::size_t bytes) { mark(at, bytes, false); }
bool all_defined(const void* at, std::size_t bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(at);
  for (std::uintptr_t i = first; i < first + bytes; ++i)
    if (byte_at(i).undefined) return false;
  return true;
}
int problems() {
  const int before = found;
  found = 0;
  return before;
}
void be_quiet(bool quiet) { hushed = quiet; }

}  // namespace watch
}  // namespace fastface

#define FF_CODE __builtin_return_address(0)
using fastface::watch::touch;
using fastface::watch::Way;

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define FF_ACCESS(bytes)                                                                  \
  void __tsan_read##bytes(void* at) { touch(at, bytes, Way::kRead, FF_CODE); }            \
  void __tsan_write##bytes(void* at) { touch(at, bytes, Way::kWrite, FF_CODE); }          \
  void __tsan_unaligned_read##bytes(void* at) { touch(at, bytes, Way::kRead, FF_CODE); }  \
  void __tsan_unaligned_write##bytes(void* at) { touch(at, bytes, Way::kWrite, FF_CODE); }
FF_ACCESS(1)
FF_ACCESS(2)
FF_ACCESS(4)
FF_ACCESS(8)
FF_ACCESS(16)
void __tsan_read_range(void* at, std::size_t bytes) { touch(at, bytes, Way::kRead, FF_CODE); }
void __tsan_write_range(void* at, std::size_t bytes) { touch(at, bytes, Way::kWrite, FF_CODE); }
#define FF_ATOMIC(bits, T)                                     \
  T __tsan_atomic##bits##_load(const volatile T* at, int) {    \
    touch(const_cast<const T*>(at), bits / 8, Way::kAtomicRead, FF_CODE);  \
    return *at;                                                \
  }                                                            \
  void __tsan_atomic##bits##_store(volatile T* at, T value, int) { \
    touch(const_cast<const T*>(at), bits / 8, Way::kAtomicWrite, FF_CODE); \
    *at = value;                                               \
  }
FF_ATOMIC(8, char)
FF_ATOMIC(32, std::int32_t)
FF_ATOMIC(64, std::int64_t)
std::int32_t __tsan_atomic32_fetch_add(volatile std::int32_t* at, std::int32_t value, int) {
  touch(const_cast<const std::int32_t*>(at), 4, Way::kAtomicWrite, FF_CODE);
  const std::int32_t before = *at;
  *at = before + value;
  return before;
}
}
