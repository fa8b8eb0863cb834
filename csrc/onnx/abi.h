// The part of ONNX Runtime's binary interface that these operators use. Its C interface is one table of functions per
// process, addressed by position; positions never change and new ones are only appended, so a library that names the
// few it needs is good for every later release. Nothing here needs ONNX Runtime's own headers.
//
// Every call that can fail returns a Status*, null when all went well; whoever receives one releases it or passes it on.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastface::onnx {

// Release 1.18. It is the first with every function below and with the operator structure as long as it is here.
constexpr std::uint32_t kApiVersion = 18;

// Handles that only ONNX Runtime looks into.
struct Status;
struct SessionOptions;
struct OperatorDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct ShapeInfo;     // element type and dimensions of a tensor
struct ShapeContext;  // what is known of a node's inputs while a graph is loaded
struct AttributeHandle;
struct Operator;
struct Allocator;
struct MemoryInfo;

struct ApiBase {
  const void* const* (*table)(std::uint32_t version);  // null when this runtime is older
  const char* (*version)();
};

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2, kNotImplemented = 9 };
enum ElementType : int {
  kAnyType = 0,
  kTypeFloat32 = 1,
  kTypeUint8 = 2,
  kTypeInt8 = 3,
  kTypeInt32 = 6,
  kTypeFloat16 = 10
};
enum Presence : int { kRequired = 0, kOptional = 1 };
enum AttributeType : int { kAttributeInt = 1 };
constexpr int kDefaultMemory = 0;  // where the operator's own kernels compute

// Positions in the table, with the types of what is there.
template <class Function, int Position>
struct Slot {};
#define FF_ORT_SLOT(name, position, result, ...) constexpr Slot<result (*)(__VA_ARGS__), position> name;
namespace slot {
FF_ORT_SLOT(create_status, 0, Status*, ErrorCode, const char*)
FF_ORT_SLOT(error_message, 2, const char*, const Status*)
FF_ORT_SLOT(create_domain, 26, Status*, const char*, OperatorDomain**)
FF_ORT_SLOT(domain_add, 27, Status*, OperatorDomain*, const Operator*)
FF_ORT_SLOT(add_domain, 28, Status*, SessionOptions*, OperatorDomain*)
FF_ORT_SLOT(tensor_data, 51, Status*, Value*, void**)
FF_ORT_SLOT(create_shape, 57, Status*, ShapeInfo**)
FF_ORT_SLOT(set_element_type, 58, Status*, ShapeInfo*, ElementType)
FF_ORT_SLOT(set_dimensions, 59, Status*, ShapeInfo*, const std::int64_t*, std::size_t)
FF_ORT_SLOT(element_type, 60, Status*, const ShapeInfo*, ElementType*)
FF_ORT_SLOT(dimension_count, 61, Status*, const ShapeInfo*, std::size_t*)
FF_ORT_SLOT(dimensions, 62, Status*, const ShapeInfo*, std::int64_t*, std::size_t)
FF_ORT_SLOT(dimension_names, 63, Status*, const ShapeInfo*, const char**, std::size_t)
FF_ORT_SLOT(tensor_shape, 65, Status*, const Value*, ShapeInfo**)
FF_ORT_SLOT(allocate, 75, Status*, Allocator*, std::size_t, void**)
FF_ORT_SLOT(free, 76, Status*, Allocator*, void*)
FF_ORT_SLOT(allocator_info, 77, Status*, const Allocator*, const MemoryInfo**)  // stays the allocator's
FF_ORT_SLOT(attribute_float, 85, Status*, const KernelInfo*, const char*, float*)
FF_ORT_SLOT(attribute_int, 86, Status*, const KernelInfo*, const char*, std::int64_t*)
FF_ORT_SLOT(attribute_string, 87, Status*, const KernelInfo*, const char*, char*, std::size_t*)
FF_ORT_SLOT(input, 90, Status*, const KernelContext*, std::size_t, const Value**)
FF_ORT_SLOT(output, 91, Status*, KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**)
FF_ORT_SLOT(release_status, 93, void, Status*)
FF_ORT_SLOT(release_shape, 99, void, ShapeInfo*)
FF_ORT_SLOT(release_domain, 101, void, OperatorDomain*)
FF_ORT_SLOT(release_allocator, 132, void, Allocator*)
FF_ORT_SLOT(gpu_stream, 193, Status*, const KernelContext*, void**)
FF_ORT_SLOT(known_input_count, 267, Status*, const ShapeContext*, std::size_t*)
FF_ORT_SLOT(known_input, 268, Status*, const ShapeContext*, std::size_t, ShapeInfo**)  // stays the context's
FF_ORT_SLOT(known_attribute, 269, Status*, const ShapeContext*, const char*, const AttributeHandle**)
FF_ORT_SLOT(set_known_output, 270, Status*, const ShapeContext*, std::size_t, const ShapeInfo*)
FF_ORT_SLOT(set_dimension_names, 271, Status*, ShapeInfo*, const char**, std::size_t)
FF_ORT_SLOT(read_attribute, 272, Status*, const AttributeHandle*, AttributeType, void*, std::size_t, std::size_t*)
FF_ORT_SLOT(parallel_for, 274, Status*, const KernelContext*, void (*)(void*, std::size_t), std::size_t, std::size_t,
            void*)
FF_ORT_SLOT(stream_scratch, 277, Status*, const KernelContext*, const MemoryInfo*, std::size_t, void**)
FF_ORT_SLOT(kernel_allocator, 278, Status*, const KernelInfo*, int, Allocator**)
}  // namespace slot
#undef FF_ORT_SLOT

class Api {
 public:
  Api() = default;
  explicit Api(const void* const* table) : table_(table) {}

  template <class Function, int Position, class... Arguments>
  auto operator()(Slot<Function, Position>, Arguments... arguments) const {
    return reinterpret_cast<Function>(const_cast<void*>(table_[Position]))(arguments...);
  }
  explicit operator bool() const { return table_ != nullptr; }

 private:
  const void* const* table_ = nullptr;
};

// One operator for one kind of device, as ONNX Runtime reads it: version, then functions in this order. What is null
// takes ONNX Runtime's default; `version` says up to where it may look.
struct Operator {
  std::uint32_t version = kApiVersion;
  void* (*create_kernel_1)(const Operator*, const void* const*, const KernelInfo*) = nullptr;
  const char* (*name)(const Operator*) = nullptr;
  const char* (*provider)(const Operator*) = nullptr;
  ElementType (*input_type)(const Operator*, std::size_t) = nullptr;
  std::size_t (*input_count)(const Operator*) = nullptr;
  ElementType (*output_type)(const Operator*, std::size_t) = nullptr;
  std::size_t (*output_count)(const Operator*) = nullptr;
  void (*compute_1)(void*, KernelContext*) = nullptr;
  void (*destroy_kernel)(void*) = nullptr;
  Presence (*input_presence)(const Operator*, std::size_t) = nullptr;
  Presence (*output_presence)(const Operator*, std::size_t) = nullptr;
  int (*input_memory)(const Operator*, std::size_t) = nullptr;
  int (*variadic_input_least)(const Operator*) = nullptr;
  int (*variadic_input_alike)(const Operator*) = nullptr;
  int (*variadic_output_least)(const Operator*) = nullptr;
  int (*variadic_output_alike)(const Operator*) = nullptr;
  Status* (*create_kernel)(const Operator*, const void* const*, const KernelInfo*, void**) = nullptr;
  Status* (*compute)(void*, KernelContext*) = nullptr;
  Status* (*infer_shapes)(const Operator*, ShapeContext*) = nullptr;
  int (*first_version)(const Operator*) = nullptr;
  int (*last_version)(const Operator*) = nullptr;
  std::size_t (*may_share)(int**, int**) = nullptr;
  void (*release_may_share)(int*, int*) = nullptr;
  std::size_t (*aliases)(int**, int**) = nullptr;
  void (*release_aliases)(int*, int*) = nullptr;
};
static_assert(sizeof(Operator) == 26 * sizeof(void*), "as long as ONNX Runtime 1.18 to 1.31 expects");

}  // namespace fastface::onnx
