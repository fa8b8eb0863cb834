// The only list of ops. The per-instruction-set tables, the Python binding and every other adapter read it.
#pragma once

#include "core/isa.h"
#include "core/macros.h"
#include "ops/blend.h"
#include "ops/deform.h"
#include "ops/rasterize.h"
#include "ops/shade.h"

// X(parameter struct, name)
#define FF_FOR_EACH_OP(X) \
  X(Deform, deform)       \
  X(Rasterize, rasterize) \
  X(Shade, shade)         \
  X(Blend, blend)

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
#undef FF_TABLE_LOOKUP

}  // namespace fastface
