// The instruction-set levels the ops are compiled for, and which of them this machine runs.
#pragma once

namespace fastface {

enum class Isa { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

constexpr int kIsaCount = 3;

const char* isa_name(Isa isa);

// True when the level was compiled in and the processor (and its operating system) runs it.
bool isa_available(Isa isa);

Isa best_isa();

}  // namespace fastface
