// Cuts arrays out of a caller's workspace. With a null base it only measures, so that one function both states how much
// an op needs and lays it out.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/view.h"

namespace fastface {
inline namespace FF_ISA {

class Arena {
 public:
  FF_HD explicit Arena(unsigned char* base) : base_(base) {}

  template <class T>
  FF_HD T* take(std::int64_t count) {
    unsigned char* at = base_ == nullptr ? nullptr : base_ + used_;
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    used_ += (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
    return reinterpret_cast<T*>(at);
  }
  FF_HD std::int64_t used() const { return used_; }

 private:
  unsigned char* base_;
  std::int64_t used_ = 0;
};

}  // namespace FF_ISA
}  // namespace fastface
