// What is known of a node's outputs before anything runs.
#pragma once

#include <string>

#include "onnx/binding.h"

namespace fastface::onnx {

// Sizes by number or by name, inferred while a graph is loaded.
template <class Op, Form kForm>
class ShapeInference {
 public:
  explicit ShapeInference(const ShapeContext* context) : context_(context), signature_(signature_of<Op, kForm>()) {}

  void run() {
    std::size_t count = 0;
    check(runtime.api(slot::known_input_count, context_, &count));
    for (std::size_t i = 0; i < count && i < signature_.inputs.size(); ++i) read_input(i);
    for (const Attribute& attribute : signature_.attributes)
      if (attribute.required) read_size(attribute.name);
    // Whether the node has an optional output cannot be asked, and saying the shape of one that it has not may be fatal.
    for (std::size_t i = 0; i < signature_.outputs.size(); ++i)
      if (!signature_.outputs[i].optional) write_output(i);
  }

 private:
  void read_input(std::size_t index) {
    const Argument& argument = signature_.inputs[index];
    ShapeInfo* info = nullptr;  // the context's
    if (Status* status = runtime.api(slot::known_input, context_, index, &info)) {
      runtime.api(slot::release_status, status);
      return;
    }
    std::size_t rank = 0;
    check(runtime.api(slot::dimension_count, static_cast<const ShapeInfo*>(info), &rank));
    if (rank == 0 || rank > kMaxRank) return;  // unknown, or refused when it runs
    std::int64_t size[kMaxRank];
    const char* name[kMaxRank] = {};
    check(runtime.api(slot::dimensions, static_cast<const ShapeInfo*>(info), size, rank));
    check(runtime.api(slot::dimension_names, static_cast<const ShapeInfo*>(info), name, rank));
    each_size(argument.shape, [&](int axis, char letter, std::int64_t) {
      if (letter == 0 || static_cast<std::size_t>(axis) >= rank) return;
      if (size[axis] >= 0) sizes_[letter] = size[axis];
      std::string& known = names_[static_cast<unsigned char>(letter) & 127];
      if (name[axis] != nullptr && known.empty()) known = name[axis];
    });
  }

  void read_size(const char* name) {
    const AttributeHandle* handle = nullptr;
    std::int64_t value = -1;
    std::size_t written = 0;
    Status* status = runtime.api(slot::known_attribute, context_, name, &handle);
    if (status == nullptr)
      status = runtime.api(slot::read_attribute, handle, kAttributeInt, static_cast<void*>(&value), sizeof(value),
                           &written);
    if (status != nullptr) {
      runtime.api(slot::release_status, status);
      return;
    }
    for (const FreeSize& free : kFreeSizes)
      if (std::string_view(free.attribute) == name) sizes_[free.letter] = value;
  }

  void write_output(std::size_t index) {
    std::int64_t size[kMaxRank];
    const char* name[kMaxRank];
    const int rank = each_size(signature_.outputs[index].shape, [&](int axis, char letter, std::int64_t number) {
      size[axis] = letter == 0 ? number : sizes_[letter];
      const std::string& known = names_[static_cast<unsigned char>(letter) & 127];
      name[axis] = size[axis] >= 0 ? "" : known.c_str();
    });
    for (int axis = 0; axis < rank; ++axis)
      if (size[axis] < 0 && name[axis][0] == '\0') return;  // nothing that could be said
    ShapeInfo* info = nullptr;
    check(runtime.api(slot::create_shape, &info));
    const std::size_t axes = static_cast<std::size_t>(rank);
    Status* status = runtime.api(slot::set_element_type, info, signature_.outputs[index].type);
    if (status == nullptr)
      status = runtime.api(slot::set_dimensions, info, static_cast<const std::int64_t*>(size), axes);
    if (status == nullptr)
      status = runtime.api(slot::set_dimension_names, info, static_cast<const char**>(name), axes);
    if (status == nullptr)
      status = runtime.api(slot::set_known_output, context_, index, static_cast<const ShapeInfo*>(info));
    runtime.api(slot::release_shape, info);
    check(status);
  }

  const ShapeContext* context_;
  const Signature& signature_;
  Sizes sizes_;
  std::string names_[128];
};

}  // namespace fastface::onnx
