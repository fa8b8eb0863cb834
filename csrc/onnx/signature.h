// What an op takes and gives, read off its own description (describe() in csrc/ops): all that ONNX needs to know of it.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/view.h"
#include "registry.h"

namespace fastface::onnx {

struct Argument {
  const char* name;
  const char* shape;  // sizes: a letter, which is the same size wherever it stands, or a number
  Dtype dtype;
  bool half_too;  // float16 as well as float32
  bool optional;
};

struct Attribute {
  const char* name;
  double preset;
  bool whole;     // an integer
  bool required;  // no array says it
};

struct Signature {
  const char* name;  // "FastfaceDeform"
  const char* op;    // "deform"
  int version;
  std::vector<Argument> inputs, outputs;
  std::vector<Attribute> attributes;
};

// A size that no input has must be an attribute.
struct FreeSize {
  char letter;
  const char* attribute;
};
constexpr FreeSize kFreeSizes[] = {{'H', "height"}, {'W', "width"}};

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> : std::integral_constant<Dtype, Dtype::kFloat32> {};
template <>
struct DtypeOf<std::int32_t> : std::integral_constant<Dtype, Dtype::kInt32> {};
template <>
struct DtypeOf<std::uint8_t> : std::integral_constant<Dtype, Dtype::kUint8> {};

// The name of an operator: the op's own, or what the field calls it where the short name says too little.
template <class Op>
struct OperatorName;
#define FF_OPERATOR_NAME(Struct, name)                      \
  template <>                                               \
  struct OperatorName<Struct> {                             \
    static constexpr const char* value = "Fastface" #Struct; \
  };
FF_OPERATOR_NAME(Deform, deform)
FF_OPERATOR_NAME(Rasterize, rasterize)
FF_OPERATOR_NAME(Shade, shade)
#undef FF_OPERATOR_NAME
template <>
struct OperatorName<Blend> {
  static constexpr const char* value = "FastfacePoissonBlend";
};

class SignatureReader {
 public:
  explicit SignatureReader(Signature& signature) : to_(signature) {}

  template <class T>
  void input(const char* name, View<const T>&, const char* shape) {
    to_.inputs.push_back({name, shape, DtypeOf<T>::value, false, false});
  }
  void input(const char* name, RealView&, const char* shape) {
    to_.inputs.push_back({name, shape, Dtype::kFloat32, true, false});
  }
  template <class T>
  void output(const char* name, View<T>&, const char* shape) {
    to_.outputs.push_back({name, shape, DtypeOf<T>::value, false, false});
  }
  template <class T>
  void optional_output(const char* name, View<T>&, const char* shape) {
    to_.outputs.push_back({name, shape, DtypeOf<T>::value, false, true});
  }
  // No more threads than a session has: 0 takes them all.
  void attribute(const char* name, int& value) {
    const bool threads = std::string_view(name) == "threads";
    to_.attributes.push_back({name, threads ? 0.0 : value, true, false});
  }
  void attribute(const char* name, float& value) { to_.attributes.push_back({name, value, false, false}); }
  void workspace(WorkspaceView&) {}

 private:
  Signature& to_;
};

inline bool has_letter(const std::vector<Argument>& arguments, char letter) {
  for (const Argument& argument : arguments)
    if (std::string_view(argument.shape).find(letter) != std::string_view::npos) return true;
  return false;
}

template <class Op>
const Signature& signature_of() {
  static const Signature signature = [] {
    Signature made{OperatorName<Op>::value, Op::kName, Op::kVersion, {}, {}, {}};
    Op op;
    SignatureReader reader(made);
    op.describe(reader);
    for (const FreeSize& size : kFreeSizes)
      if (has_letter(made.outputs, size.letter) && !has_letter(made.inputs, size.letter))
        made.attributes.push_back({size.attribute, 0, true, true});
    return made;
  }();
  return signature;
}

}  // namespace fastface::onnx
