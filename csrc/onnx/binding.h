// From a node's arrays and attributes to an op's: checked against the description, refused in words.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "onnx/abi.h"
#include "onnx/checks.h"
#include "onnx/signature.h"

namespace fastface::onnx {

// Set when the library is registered, and the same for every session of the process.
struct Runtime {
  Api api;
  Isa isa = Isa::kBaseline;
  int cores = 1;
};
extern Runtime runtime;

// What went wrong, on its way out to ONNX Runtime: either its own complaint or ours.
struct Failure {
  Status* status;
};

inline void check(Status* status) {
  if (status != nullptr) throw Failure{status};
}
[[noreturn]] inline void refuse(const std::string& message) {
  throw Failure{runtime.api(slot::create_status, kInvalidArgument, message.c_str())};
}

// No exception may cross into ONNX Runtime.
template <class Body>
Status* guarded(const char* op, Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::bad_alloc&) {
    return runtime.api(slot::create_status, kFail, "fastface: out of memory");
  } catch (const std::exception& error) {
    try {
      return runtime.api(slot::create_status, kFail, (std::string(op) + ": " + error.what()).c_str());
    } catch (...) {
      return runtime.api(slot::create_status, kFail, "fastface: out of memory");
    }
  }
}

// ---- shapes

struct Shape {
  std::int64_t size[kMaxRank];
  std::size_t rank;
};

class Sizes {
 public:
  Sizes() {
    for (std::int64_t& s : size_) s = -1;
  }
  std::int64_t& operator[](char letter) { return size_[static_cast<unsigned char>(letter) & 127]; }
  std::int64_t operator[](char letter) const { return size_[static_cast<unsigned char>(letter) & 127]; }

 private:
  std::int64_t size_[128];
};

// Calls body(axis, letter, number) for every size of a shape in words; the letter is 0 where a number stands.
template <class Body>
int each_size(const char* shape, Body&& body) {
  int axis = 0;
  for (const char* at = shape; *at != '\0'; ++axis) {
    std::int64_t number = 0;
    char letter = 0;
    if (*at >= '0' && *at <= '9') {
      while (*at >= '0' && *at <= '9') number = 10 * number + (*at++ - '0');
    } else {
      letter = *at++;
    }
    body(axis, letter, number);
    while (*at == ' ') ++at;
  }
  return axis;
}

inline std::string shape_words(const char* shape, const Sizes& known) {
  std::string words;
  each_size(shape, [&](int, char letter, std::int64_t number) {
    words += words.empty() ? "(" : ", ";
    const std::int64_t size = letter == 0 ? number : known[letter];
    words += size >= 0 ? std::to_string(size) : std::string(1, letter);
  });
  return words + ")";
}

inline std::string words_of(const Shape& shape, const char* type) {
  std::string words = "(";
  for (std::size_t axis = 0; axis < shape.rank; ++axis)
    words += (axis > 0 ? ", " : "") + std::to_string(shape.size[axis]);
  return words + ") " + type;
}

constexpr std::int64_t kMostInOneAxis = INT32_MAX;

// True when the shape is what the words say, given what is known already; then more is known.
inline bool matches(const char* words, const Shape& shape, Sizes& known) {
  if (static_cast<std::size_t>(each_size(words, [](int, char, std::int64_t) {})) != shape.rank) return false;
  bool fits = true;
  each_size(words, [&](int axis, char letter, std::int64_t number) {
    const std::int64_t size = shape.size[axis];
    std::int64_t wanted = letter == 0 ? number : known[letter];
    if (wanted < 0) wanted = size <= kMostInOneAxis ? size : -1;
    fits = fits && size == wanted;
    if (letter != 0 && fits) known[letter] = size;
  });
  return fits;
}

// ---- element types

inline const char* type_words(int type) {
  constexpr const char* kWords[] = {"undefined", "float32", "uint8",   "int8",    "uint16", "int16",  "int32",
                                    "int64",     "string",  "bool",    "float16", "double", "uint32", "uint64"};
  return type >= 0 && type < 14 ? kWords[type] : "of another type";
}

inline const char* wanted_type(const Argument& argument) {
  return argument.half_too ? "float32 or float16" : type_words(argument.type);
}

inline bool accepts(const Argument& argument, ElementType type) {
  return type == argument.type || (argument.half_too && type == kTypeFloat16);
}

// ---- a node's attributes

class AttributeReader {
 public:
  AttributeReader(const char* op, const KernelInfo* info) : op_(op), info_(info) {}

  // False where the node does not say; an attribute of another type is refused.
  bool read(const char* name, std::int64_t& value) const {
    if (said(runtime.api(slot::attribute_int, info_, name, &value))) return true;
    float real;
    refuse_if(said(runtime.api(slot::attribute_float, info_, name, &real)), name, "an integer");
    refuse_if(has_string(name), name, "an integer");
    return false;
  }
  bool read(const char* name, float& value) const {
    if (said(runtime.api(slot::attribute_float, info_, name, &value))) return true;
    std::int64_t whole;
    refuse_if(said(runtime.api(slot::attribute_int, info_, name, &whole)), name, "a float");
    refuse_if(has_string(name), name, "a float");
    return false;
  }

  // As a visitor of a description: what the node does not say keeps its preset.
  template <class... Anything>
  void input(Anything&&...) {}
  template <class... Anything>
  void output(Anything&&...) {}
  template <class... Anything>
  void optional_output(Anything&&...) {}
  void attribute(const char* name, int& value) {
    const bool threads = std::string_view(name) == "threads";
    std::int64_t given = threads ? 0 : value;
    read(name, given);
    if (given < (threads ? 0 : INT32_MIN) || given > (threads ? 1024 : INT32_MAX))
      refuse(op_ + ": " + name + " must be " + (threads ? "0 (as many as the session has) to 1024" : "a 32-bit integer") +
             ", got " + std::to_string(given));
    value = static_cast<int>(given);
  }
  void attribute(const char* name, float& value) { read(name, value); }
  void workspace(WorkspaceView&) {}

 private:
  static bool said(Status* status) {
    if (status == nullptr) return true;
    runtime.api(slot::release_status, status);
    return false;
  }
  bool has_string(const char* name) const {
    std::size_t length = 0;
    return said(runtime.api(slot::attribute_string, info_, name, static_cast<char*>(nullptr), &length));
  }
  void refuse_if(bool wrong, const char* name, const char* wanted) const {
    if (wrong) refuse(op_ + ": attribute " + name + " must be " + wanted + ", got another type");
  }

  std::string op_;
  const KernelInfo* info_;
};

// ---- a node's arrays

// Takes a call's inputs and makes its outputs in the order of the description.
class Binder {
 public:
  Binder(const Signature& signature, KernelContext* context, const Sizes& sizes)
      : signature_(signature), context_(context), sizes_(sizes) {}

  template <class T>
  void input(const char*, View<const T>& view, const char*) {
    bind_input(view);
  }
  void input(const char*, RealView& view, const char*) {
    view.dtype = bind_input(view) == kTypeFloat16 ? Dtype::kFloat16 : Dtype::kFloat32;
  }
  template <class T>
  void output(const char*, View<T>& view, const char*) {
    bind_output(view);
  }
  template <class T>
  void optional_output(const char* name, View<T>& view, const char*) {
    if (outputs_ < signature_.outputs.size() && std::string_view(signature_.outputs[outputs_].name) == name)
      bind_output(view);
  }
  template <class T>
  void attribute(const char*, T&) {}
  void workspace(WorkspaceView&) {}

 private:
  template <class V>
  ElementType bind_input(V& view) {
    const Argument& argument = signature_.inputs[inputs_];
    const Value* value = nullptr;
    check(runtime.api(slot::input, context_, inputs_++, &value));
    if (value == nullptr) refuse(std::string(signature_.name) + ": " + argument.name + " is missing");
    ElementType type = kAnyType;
    const Shape shape = shape_of(value, argument, type);
    if (!accepts(argument, type) || !matches(argument.shape, shape, sizes_))
      refuse(std::string(signature_.name) + ": " + argument.name + " must be " + shape_words(argument.shape, sizes_) + " " +
             wanted_type(argument) + ", got " + words_of(shape, type_words(type)));
    void* data = nullptr;
    check(runtime.api(slot::tensor_data, const_cast<Value*>(value), &data));
    for (std::size_t axis = 0; axis < shape.rank; ++axis) view.shape[axis] = shape.size[axis];
    view.data = static_cast<decltype(view.data)>(data);
    return type;
  }

  Shape shape_of(const Value* value, const Argument& argument, ElementType& type) const {
    ShapeInfo* info = nullptr;
    check(runtime.api(slot::tensor_shape, value, &info));
    Shape shape{};
    std::size_t rank = 0;
    Status* status = runtime.api(slot::element_type, static_cast<const ShapeInfo*>(info), &type);
    if (status == nullptr) status = runtime.api(slot::dimension_count, static_cast<const ShapeInfo*>(info), &rank);
    shape.rank = rank;
    if (status == nullptr && rank <= kMaxRank)
      status = runtime.api(slot::dimensions, static_cast<const ShapeInfo*>(info), shape.size, rank);
    runtime.api(slot::release_shape, info);
    check(status);
    if (rank > kMaxRank)
      refuse(std::string(signature_.name) + ": " + argument.name + " must be " + shape_words(argument.shape, sizes_) +
             ", got " + std::to_string(rank) + " axes");
    return shape;
  }

  template <class V>
  void bind_output(V& view) {
    const Argument& argument = signature_.outputs[outputs_];
    const int rank = each_size(argument.shape, [&](int axis, char letter, std::int64_t number) {
      view.shape[axis] = letter == 0 ? number : sizes_[letter];
    });
    Value* value = nullptr;
    check(runtime.api(slot::output, context_, outputs_++, static_cast<const std::int64_t*>(view.shape),
                      static_cast<std::size_t>(rank), &value));
    if (value == nullptr && !argument.optional)
      refuse(std::string(signature_.name) + ": output " + argument.name + " must be taken");
    void* data = nullptr;
    if (value != nullptr) check(runtime.api(slot::tensor_data, value, &data));
    view.data = static_cast<decltype(view.data)>(data);
  }

  const Signature& signature_;
  KernelContext* context_;
  Sizes sizes_;
  std::size_t inputs_ = 0, outputs_ = 0;
};

}  // namespace fastface::onnx
