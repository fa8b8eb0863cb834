// The one thing that callers of device kernels and the kernels' schedules share.
#pragma once

namespace fastface {

using Stream = void*;  // a cudaStream_t; null is the legacy default stream

}  // namespace fastface
