// The table of a device's entries; included where its functions are linked, once for each kind of device.
#pragma once

#include "registry.h"

namespace fastface {
inline namespace FF_ISA {

#define FF_DECLARE_ENTRY(Struct, name)            \
  std::int64_t workspace_bytes(const Struct& op); \
  Status run(const Struct& op, Stream stream);
FF_FOR_EACH_OP(FF_DECLARE_ENTRY)
FF_FOR_EACH_FRAME_STEP(FF_DECLARE_ENTRY)
#undef FF_DECLARE_ENTRY

constexpr DeviceTable kDeviceTable = {
#define FF_FILL_ENTRY(Struct, name) {&FF_ISA::workspace_bytes, &FF_ISA::run},
    FF_FOR_EACH_OP(FF_FILL_ENTRY) FF_FOR_EACH_FRAME_STEP(FF_FILL_ENTRY)
#undef FF_FILL_ENTRY
};

}  // namespace FF_ISA
}  // namespace fastface
