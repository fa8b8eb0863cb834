// An op as an ONNX Runtime operator. Everything that differs from op to op comes from its description.
#pragma once

#include <string>

#include "onnx/binding.h"
#include "onnx/devices.h"
#include "onnx/inference.h"

namespace fastface::onnx {

// A node in a session.
template <class Op, class Device, Form kForm>
class Kernel {
 public:
  explicit Kernel(const KernelInfo* info) {
    const Signature& signature = signature_of<Op, kForm>();
    AttributeReader attributes(signature.name, info);
    prototype_.describe(attributes);
    if (prototype_.threads == 0) prototype_.threads = runtime.cores;
    for (const Attribute& attribute : signature.attributes)
      if (attribute.required) read_size(attributes, signature, attribute.name);
    check(runtime.api(slot::kernel_allocator, info, kDefaultMemory, &allocator_));
  }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  ~Kernel() {
    if (allocator_ != nullptr) runtime.api(slot::release_allocator, allocator_);
  }

  void compute(KernelContext* context) const {
    const Signature& signature = signature_of<Op, kForm>();
    Op op = prototype_;
    Binder binder(signature, context, sizes_);
    op.describe(binder);
    if (const char* wrong = sizes_misfit(op)) refuse(std::string(signature.name) + ": " + wrong);
    if constexpr (Device::kHostMemory)
      if (const char* wrong = values_misfit(op)) refuse(std::string(signature.name) + ": " + wrong);
    const fastface::Status status = Device::run(op, context, allocator_);
    if (status != fastface::Status::kOk) refuse(std::string(signature.name) + ": " + status_message(status));
  }

 private:
  void read_size(const AttributeReader& attributes, const Signature& signature, const char* name) {
    std::int64_t size = -1;
    if (!attributes.read(name, size) || size < 0 || size > kMostPixelsASide)
      refuse(std::string(signature.name) + ": attribute " + name + " must be an integer in 0 to 32767" +
             (size < 0 ? "" : ", got " + std::to_string(size)));
    for (const FreeSize& free : kFreeSizes)
      if (std::string_view(free.attribute) == name) sizes_[free.letter] = size;
  }

  Op prototype_;
  Sizes sizes_;
  Allocator* allocator_ = nullptr;
};

// What ONNX Runtime reads. Operators of one name for several devices share their schema.
template <class Op, class Device, Form kForm>
const Operator& operator_on() {
  static const Operator made = [] {
    Operator to;
    to.name = [](const Operator*) { return signature_of<Op, kForm>().name; };
    to.provider = [](const Operator*) { return Device::kProvider; };
    to.input_count = [](const Operator*) { return signature_of<Op, kForm>().inputs.size(); };
    to.output_count = [](const Operator*) { return signature_of<Op, kForm>().outputs.size(); };
    to.input_type = [](const Operator*, std::size_t index) {
      const Argument& argument = signature_of<Op, kForm>().inputs[index];
      return argument.half_too ? kAnyType : argument.type;
    };
    to.output_type = [](const Operator*, std::size_t index) {
      return signature_of<Op, kForm>().outputs[index].type;
    };
    to.input_presence = [](const Operator*, std::size_t) { return kRequired; };
    to.output_presence = [](const Operator*, std::size_t index) {
      return signature_of<Op, kForm>().outputs[index].optional ? kOptional : kRequired;
    };
    to.input_memory = [](const Operator*, std::size_t) { return kDefaultMemory; };
    to.first_version = [](const Operator*) { return Op::kVersion; };
    to.create_kernel = [](const Operator*, const void* const*, const KernelInfo* info, void** kernel) {
      *kernel = nullptr;
      return guarded(signature_of<Op, kForm>().name, [&] { *kernel = new Kernel<Op, Device, kForm>(info); });
    };
    to.destroy_kernel = [](void* kernel) { delete static_cast<Kernel<Op, Device, kForm>*>(kernel); };
    to.compute = [](void* kernel, KernelContext* context) {
      const auto* const made = static_cast<const Kernel<Op, Device, kForm>*>(kernel);
      return guarded(signature_of<Op, kForm>().name, [&] { made->compute(context); });
    };
    to.infer_shapes = [](const Operator*, ShapeContext* context) {
      return guarded(signature_of<Op, kForm>().name, [&] { ShapeInference<Op, kForm>(context).run(); });
    };
    return to;
  }();
  return made;
}

}  // namespace fastface::onnx
