// Who touches what in an emulated kernel, for tests: compiled with FF_WATCHED and the compiler's instrumentation for
// ThreadSanitizer, whose place tests/cpp/watch.cpp takes. Elsewhere nothing is done.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastface {
namespace watch {

#if defined(FF_WATCHED)
#define FF_WATCH(name, ...) void name(__VA_ARGS__);
#else
#define FF_WATCH(name, ...) \
  inline void name(__VA_ARGS__) {}
#endif

FF_WATCH(begin_launch, const char* /*kernel*/)
FF_WATCH(end_launch)
FF_WATCH(begin_block, std::int64_t /*index*/, const void* /*shared*/, std::size_t /*bytes*/)
FF_WATCH(end_block)
FF_WATCH(run_thread, int /*index*/)
FF_WATCH(barrier)
FF_WATCH(fill, const void* /*at*/, std::size_t /*bytes*/)
#undef FF_WATCH

#if defined(FF_WATCHED)
// Memory that holds nothing yet; and memory that holds something, or is no more.
void undefined(const void* at, std::size_t bytes);
void defined(const void* at, std::size_t bytes);
bool all_defined(const void* at, std::size_t bytes);
// How many accesses went wrong since it was asked last; the first of them are told on stderr unless `quiet`.
int problems();
void be_quiet(bool quiet);
#endif

}  // namespace watch
}  // namespace fastface
