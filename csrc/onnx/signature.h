// What an op takes and gives, read off its own description (describe() in csrc/ops): all that ONNX needs to know of it.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/view.h"
#include "onnx/abi.h"
#include "registry.h"

namespace fastface::onnx {

// The same operators twice, in a domain each: as ONNX has them, and as TensorRT's plug-ins are. Those know no uint8, so
// that bytes come and go as int8 of the same bits, and no outputs that need not be taken; their last output is workspace,
// which stays unwritten here.
enum class Form { kPlain, kPlugin };

constexpr const char* domain_of(Form form) { return form == Form::kPlain ? "fastface" : "fastface.tensorrt"; }

struct Argument {
  const char* name;
  const char* shape;  // sizes: a letter, which is the same size wherever it stands, or a number
  ElementType type;
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
struct TypeOf;
template <>
struct TypeOf<float> : std::integral_constant<ElementType, kTypeFloat32> {};
template <>
struct TypeOf<std::int32_t> : std::integral_constant<ElementType, kTypeInt32> {};
template <>
struct TypeOf<std::uint8_t> : std::integral_constant<ElementType, kTypeUint8> {};

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
  SignatureReader(Signature& signature, Form form) : to_(signature), form_(form) {}

  template <class T>
  void input(const char* name, View<const T>&, const char* shape) {
    to_.inputs.push_back({name, shape, type_of<T>(), false, false});
  }
  void input(const char* name, RealView&, const char* shape) {
    to_.inputs.push_back({name, shape, kTypeFloat32, true, false});
  }
  template <class T>
  void output(const char* name, View<T>&, const char* shape) {
    to_.outputs.push_back({name, shape, type_of<T>(), false, false});
  }
  template <class T>
  void optional_output(const char* name, View<T>&, const char* shape) {
    if (form_ == Form::kPlain) to_.outputs.push_back({name, shape, type_of<T>(), false, true});
  }
  // No more threads than a session has: 0 takes them all.
  void attribute(const char* name, int& value) {
    const bool threads = std::string_view(name) == "threads";
    to_.attributes.push_back({name, threads ? 0.0 : value, true, false});
  }
  void attribute(const char* name, float& value) { to_.attributes.push_back({name, value, false, false}); }
  void workspace(WorkspaceView&) {}

 private:
  template <class T>
  ElementType type_of() const {
    return TypeOf<T>::value == kTypeUint8 && form_ == Form::kPlugin ? kTypeInt8 : TypeOf<T>::value;
  }

  Signature& to_;
  Form form_;
};

inline bool has_letter(const std::vector<Argument>& arguments, char letter) {
  for (const Argument& argument : arguments)
    if (std::string_view(argument.shape).find(letter) != std::string_view::npos) return true;
  return false;
}

template <class Op, Form kForm = Form::kPlain>
const Signature& signature_of() {
  static const Signature signature = [] {
    Signature made{OperatorName<Op>::value, Op::kName, Op::kVersion, {}, {}, {}};
    Op op;
    SignatureReader reader(made, kForm);
    op.describe(reader);
    if (kForm == Form::kPlugin) made.outputs.push_back({"workspace", "0", kTypeInt8, false, true});
    for (const FreeSize& size : kFreeSizes)
      if (has_letter(made.outputs, size.letter) && !has_letter(made.inputs, size.letter))
        made.attributes.push_back({size.attribute, 0, true, true});
    return made;
  }();
  return signature;
}

}  // namespace fastface::onnx
