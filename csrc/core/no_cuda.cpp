// In place of core/cuda.cpp where there is no CUDA compiler.
#include "core/runtime.h"
#include "registry.h"

namespace fastface {

const DeviceTable* cuda_table() { return nullptr; }

Runtime* cuda_runtime() { return nullptr; }

}  // namespace fastface
