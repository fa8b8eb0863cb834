#include "registry.h"

namespace fastface {

extern const OpTable op_table_baseline;
#if defined(FF_X86_LEVELS)
extern const OpTable op_table_avx2;
extern const OpTable op_table_avx512;
#endif

const OpTable& op_table(Isa isa) {
#if defined(FF_X86_LEVELS)
  if (isa == Isa::kAvx512) return op_table_avx512;
  if (isa == Isa::kAvx2) return op_table_avx2;
#endif
  static_cast<void>(isa);
  return op_table_baseline;
}

}  // namespace fastface
