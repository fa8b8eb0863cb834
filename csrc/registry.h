// The only list of ops. The per-instruction-set tables, the Python binding and every other adapter read it.
#pragma once

#include "core/isa.h"
#include "core/macros.h"
#include "core/stream.h"
#include "ops/blend.h"
#include "ops/deform.h"
#include "ops/frame.h"
#include "ops/rasterize.h"
#include "ops/render.h"
#include "ops/shade.h"

// X(parameter struct, name)
#define FF_FOR_EACH_OP(X) \
  X(Deform, deform)       \
  X(Rasterize, rasterize) \
  X(Shade, shade)         \
  X(Blend, blend)

// Several ops as one, for processors.
#define FF_FOR_EACH_WHOLE(X) X(Render, render)

// What lies between the ops of a frame; on devices alone, so that a frame never comes back to the host. The renderer for
// processors does the same in a few lines of NumPy.
#define FF_FOR_EACH_FRAME_STEP(X) \
  X(Drive, drive)                 \
  X(Part, part)                   \
  X(Turn, turn)                   \
  X(Settle, settle)               \
  X(Compose, compose)

namespace fastface {

template <class Op>
struct Entry {
  std::int64_t (*workspace_bytes)(const Op&);
  Status (*run)(const Op&);
};

// One table per instruction set, filled in csrc/ops/table.cpp.
struct OpTable {
#define FF_TABLE_ENTRY(Struct, name) Entry<Struct> name;
  FF_FOR_EACH_OP(FF_TABLE_ENTRY)
  FF_FOR_EACH_WHOLE(FF_TABLE_ENTRY)
#undef FF_TABLE_ENTRY
};

const OpTable& op_table(Isa isa);

template <class Op>
const Entry<Op>& entry_of(const OpTable& table);
#define FF_TABLE_LOOKUP(Struct, name)                                  \
  template <>                                                          \
  inline const Entry<Struct>& entry_of<Struct>(const OpTable& table) { \
    return table.name;                                                 \
  }
FF_FOR_EACH_OP(FF_TABLE_LOOKUP)
FF_FOR_EACH_WHOLE(FF_TABLE_LOOKUP)
#undef FF_TABLE_LOOKUP

// The same ops on a device: views and workspace lie in its memory, `threads` means nothing. Everything is enqueued on
// `stream` and nothing waits, allocates, throws or is read back, so that a call may be captured in a CUDA graph. Triangles
// with an index out of range are dropped instead of reported. Capturing keeps the pointers and sizes of the call.
template <class Op>
struct DeviceEntry {
  std::int64_t (*workspace_bytes)(const Op&);
  Status (*run)(const Op&, Stream);
};

struct DeviceTable {
#define FF_TABLE_ENTRY(Struct, name) DeviceEntry<Struct> name;
  FF_FOR_EACH_OP(FF_TABLE_ENTRY)
  FF_FOR_EACH_FRAME_STEP(FF_TABLE_ENTRY)
#undef FF_TABLE_ENTRY
};

// Null where the library was built without a CUDA compiler. It says nothing of whether there is a GPU.
const DeviceTable* cuda_table();

// The CUDA schedules compiled by the host's compiler (core/launch.h), on host memory. For tests: it proves their indexing
// and maths, not their speed and not that a GPU orders memory as they assume.
const DeviceTable& emulated_table();

template <class Op>
const DeviceEntry<Op>& entry_of(const DeviceTable& table);
#define FF_TABLE_LOOKUP(Struct, name)                                              \
  template <>                                                                      \
  inline const DeviceEntry<Struct>& entry_of<Struct>(const DeviceTable& table) { \
    return table.name;                                                             \
  }
FF_FOR_EACH_OP(FF_TABLE_LOOKUP)
FF_FOR_EACH_FRAME_STEP(FF_TABLE_LOOKUP)
#undef FF_TABLE_LOOKUP

}  // namespace fastface
