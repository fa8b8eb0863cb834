// The part of DLPack's C interface that arrays are exchanged by, version 1.0 and what came before it
// (https://dmlc.github.io/dlpack/latest/c_api.html), declared here by its documented layout.
#pragma once

#include <cstdint>

namespace fastface {
namespace dlpack {

constexpr std::int32_t kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13;  // DLDeviceType
constexpr std::uint8_t kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4, kBool = 6;  // DLDataTypeCode
constexpr std::uint64_t kReadOnly = 1;                                          // DLPACK_FLAG_BITMASK_READ_ONLY

struct Device {
  std::int32_t type, id;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: contiguous
  std::uint64_t byte_offset;
};

struct Managed {  // capsules named "dltensor"
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Versioned {  // capsules named "dltensor_versioned"
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(Versioned*);
  std::uint64_t flags;
  Tensor tensor;
};

}  // namespace dlpack
}  // namespace fastface
