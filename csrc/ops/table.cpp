// Compiled once per instruction set: the table of that level's ops.
#include "registry.h"

namespace fastface {

extern const OpTable FF_CONCAT(op_table_, FF_ISA);
const OpTable FF_CONCAT(op_table_, FF_ISA) = {
#define FF_FILL_ENTRY(Struct, name) {&FF_ISA::workspace_bytes, &FF_ISA::run},
    FF_FOR_EACH_OP(FF_FILL_ENTRY)
    FF_FOR_EACH_WHOLE(FF_FILL_ENTRY)
#undef FF_FILL_ENTRY
};

}  // namespace fastface
