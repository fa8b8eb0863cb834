// What a plug-in's kernel does with its arguments, on the host: for tests of how they are laid out.
#include <cstring>

#include "onnx/signature.h"
#include "tensorrt/frame.h"

namespace fastface::tensorrt {
namespace {

template <class Op>
int run_frames(const Slot* slots, bool half, std::int64_t frames) {
  for (std::int64_t frame = 0; frame < frames; ++frame) {
    Op op{};
    FrameBinder<Op> binder(slots, half, frame);
    op.describe(binder);
    const Status status = entry_of<Op>(emulated_table()).run(op, nullptr);
    if (status != Status::kOk) return static_cast<int>(status);
  }
  return 0;
}

}  // namespace
}  // namespace fastface::tensorrt

// 0 when all went well; negative for an operator that there is not.
extern "C" __attribute__((visibility("default"))) int fastface_plugin_on_host(
    const char* name, const fastface::tensorrt::Slot* slots, int half, std::int64_t frames) {
  using namespace fastface;
#define FF_RUN_OPERATOR(Struct, op) \
  if (std::strcmp(name, onnx::signature_of<Struct>().name) == 0) return tensorrt::run_frames<Struct>(slots, half != 0, frames);
  FF_FOR_EACH_OP(FF_RUN_OPERATOR)
#undef FF_RUN_OPERATOR
  return -1;
}
