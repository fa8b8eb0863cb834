// Kernels with one fault each, and one with none: does the watch see it?
#include "faulty_kernels.h"

#include "core/launch.h"

namespace fastface {
namespace {

struct Plain {
  static constexpr int kThreads = 64, kBlocksPerCore = 1;
  struct Shared {
    int count;
    int value[2 * kThreads];
  };
  int* out;
};

struct Faultless : Plain {
  void operator()(const Block& block, Shared& shared) const {
    block.each(1, [&](int) { shared.count = 0; });
    block.each(kThreads, [&](int i) { shared.value[count_up(&shared.count)] = i; });
    const int count = shared.count;
    block.each(count, [&](int i) { out[block.index * kThreads + i] = shared.value[count - 1 - i]; });
    block.each(kThreads, [&](int i) { out[block.index * kThreads + i] += 1; });
  }
};

struct ReadsNeighbours : Plain {
  void operator()(const Block& block, Shared& shared) const {
    block.each(2 * kThreads, [&](int i) { shared.value[i] = i; });
    block.each(kThreads, [&](int i) { shared.value[i] = shared.value[i + 1]; });
  }
};

struct WritesWhatAllRead : Plain {
  void operator()(const Block& block, Shared& shared) const {
    block.each(1, [&](int) { shared.count = 1; });
    if (shared.count == 1) block.each(1, [&](int) { shared.count = 2; });
  }
};

struct CountsWithoutAtomics : Plain {
  void operator()(const Block& block, Shared&) const {
    block.each(kThreads, [&](int) { out[block.index] += 1; });
  }
};

struct MeetsOtherBlocks : Plain {
  void operator()(const Block& block, Shared&) const {
    block.each(1, [&](int) { out[0] = block.index; });
  }
};

struct ReadsOtherBlocks : Plain {
  void operator()(const Block& block, Shared&) const {
    block.each(1, [&](int) { out[block.index + 1] = out[block.index]; });
  }
};

struct MixesAtomics : Plain {
  void operator()(const Block& block, Shared&) const {
    block.each(kThreads, [&](int i) {
      if (i > 0) count_up(out);
      if (i == 0) out[0] = 3;
    });
  }
};

struct ReadsNothing : Plain {
  void operator()(const Block& block, Shared& shared) const {
    block.each(1, [&](int) { out[block.index] = shared.count; });
  }
};

struct Misaligned : Plain {
  void operator()(const Block& block, Shared&) const {
    block.each(1, [&](int) { *reinterpret_cast<volatile std::uint64_t*>(out + 1) = 7; });
  }
};

template <class Kernel>
int faults_of(int blocks) {
  alignas(16) static int out[4 * Plain::kThreads];  // what lies on the stack is taken for a thread's own
  Kernel kernel;
  kernel.out = out;
  launch(nullptr, blocks, kernel);
  return watch::problems();
}

}  // namespace

const std::vector<Faulty>& faulty_kernels() {
  static const std::vector<Faulty> all = {
      {"reads its neighbours", [] { return faults_of<ReadsNeighbours>(1); }},
      {"writes what all read", [] { return faults_of<WritesWhatAllRead>(1); }},
      {"counts without atomics", [] { return faults_of<CountsWithoutAtomics>(1); }},
      {"meets other blocks", [] { return faults_of<MeetsOtherBlocks>(2); }},
      {"reads other blocks", [] { return faults_of<ReadsOtherBlocks>(2); }},
      {"mixes atomics", [] { return faults_of<MixesAtomics>(1); }},
      {"reads nothing", [] { return faults_of<ReadsNothing>(1); }},
      {"misaligned", [] { return faults_of<Misaligned>(1); }},
  };
  return all;
}

int faults_of_faultless() { return faults_of<Faultless>(4); }

}  // namespace fastface
