// An op as an ONNX Runtime operator. Everything that differs from op to op comes from its description.
#pragma once

#include <exception>
#include <initializer_list>
#include <new>
#include <string>

#include "core/parallel.h"
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

constexpr ElementType element_type_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return kTypeFloat32;
    case Dtype::kFloat16:
      return kTypeFloat16;
    case Dtype::kInt32:
      return kTypeInt32;
    case Dtype::kUint8:
      return kTypeUint8;
  }
  return kAnyType;
}

inline const char* type_words(int type) {
  constexpr const char* kWords[] = {"undefined", "float32", "uint8",   "int8",    "uint16", "int16",  "int32",
                                    "int64",     "string",  "bool",    "float16", "double", "uint32", "uint64"};
  return type >= 0 && type < 14 ? kWords[type] : "of another type";
}

inline const char* wanted_type(const Argument& argument) {
  return argument.half_too ? "float32 or float16" : type_words(element_type_of(argument.dtype));
}

inline bool accepts(const Argument& argument, ElementType type) {
  return type == element_type_of(argument.dtype) || (argument.half_too && type == kTypeFloat16);
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
  void optional_output(const char*, View<T>& view, const char*) {
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

// ---- computing

// Workspace from the session's own allocator, which keeps it between calls.
class Scratch {
 public:
  Scratch(Allocator* allocator, std::int64_t bytes) : allocator_(allocator) {
    if (bytes <= 0) return;
    const auto room = static_cast<std::size_t>(bytes + kWorkspaceAlignment);
    check(runtime.api(slot::allocate, allocator_, room, &memory_));
    if (memory_ == nullptr) throw std::bad_alloc();
    const auto at = (reinterpret_cast<std::uintptr_t>(memory_) + kWorkspaceAlignment - 1) / kWorkspaceAlignment;
    view_ = {reinterpret_cast<unsigned char*>(at * kWorkspaceAlignment), bytes};
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (memory_ == nullptr) return;
    if (Status* status = runtime.api(slot::free, allocator_, memory_)) runtime.api(slot::release_status, status);
  }
  WorkspaceView view() const { return view_; }

 private:
  Allocator* allocator_;
  void* memory_ = nullptr;
  WorkspaceView view_;
};

// Parallel loops of an op run on the session's own threads.
inline void run_on_session(void* context, std::int64_t strands, TaskFunction strand, void* argument) noexcept {
  struct Call {
    TaskFunction strand;
    void* argument;
  } call{strand, argument};
  Status* status = runtime.api(
      slot::parallel_for, static_cast<const KernelContext*>(context),
      static_cast<void (*)(void*, std::size_t)>([](void* raw, std::size_t index) {
        const Call& call = *static_cast<const Call*>(raw);
        call.strand(call.argument, static_cast<std::int64_t>(index));
      }),
      static_cast<std::size_t>(strands), std::size_t{0}, static_cast<void*>(&call));
  if (status == nullptr) return;
  runtime.api(slot::release_status, status);
  for (std::int64_t i = 0; i < strands; ++i) strand(argument, i);
}

// A node in a session.
template <class Op>
class Kernel {
 public:
  explicit Kernel(const KernelInfo* info) {
    const Signature& signature = signature_of<Op>();
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
    const Signature& signature = signature_of<Op>();
    Op op = prototype_;
    Binder binder(signature, context, sizes_);
    op.describe(binder);
    for (const auto misfit : {static_cast<const char* (*)(const Op&)>(sizes_misfit),
                              static_cast<const char* (*)(const Op&)>(values_misfit)})
      if (const char* wrong = misfit(op)) refuse(std::string(signature.name) + ": " + wrong);
    const Entry<Op>& entry = entry_of<Op>(op_table(runtime.isa));
    const Scratch scratch(allocator_, entry.workspace_bytes(op));
    op.workspace = scratch.view();
    const HostThreads threads(&run_on_session, context);
    const fastface::Status status = entry.run(op);
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

// ---- what is known before anything runs

// Sizes by number or by name, inferred while a graph is loaded.
template <class Op>
class ShapeInference {
 public:
  explicit ShapeInference(const ShapeContext* context) : context_(context), signature_(signature_of<Op>()) {}

  void run() {
    std::size_t count = 0;
    check(runtime.api(slot::known_input_count, context_, &count));
    for (std::size_t i = 0; i < count && i < signature_.inputs.size(); ++i) read_input(i);
    for (const Attribute& attribute : signature_.attributes)
      if (attribute.required) read_size(attribute.name);
    for (std::size_t i = 0; i < signature_.outputs.size(); ++i) write_output(i);
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
    Status* status = runtime.api(slot::set_element_type, info, element_type_of(signature_.outputs[index].dtype));
    if (status == nullptr)
      status = runtime.api(slot::set_dimensions, info, static_cast<const std::int64_t*>(size), axes);
    if (status == nullptr)
      status = runtime.api(slot::set_dimension_names, info, static_cast<const char**>(name), axes);
    if (status == nullptr)
      status = runtime.api(slot::set_known_output, context_, index, static_cast<const ShapeInfo*>(info));
    runtime.api(slot::release_shape, info);
    // An optional output that the node does not have cannot be set, and need not.
    if (status != nullptr && signature_.outputs[index].optional) {
      runtime.api(slot::release_status, status);
      status = nullptr;
    }
    check(status);
  }

  const ShapeContext* context_;
  const Signature& signature_;
  Sizes sizes_;
  std::string names_[128];
};

// ---- the operator

template <class Op>
const Operator& cpu_operator() {
  static const Operator made = [] {
    Operator to;
    to.name = [](const Operator*) { return signature_of<Op>().name; };
    to.provider = [](const Operator*) -> const char* { return nullptr; };  // the CPU's
    to.input_count = [](const Operator*) { return signature_of<Op>().inputs.size(); };
    to.output_count = [](const Operator*) { return signature_of<Op>().outputs.size(); };
    to.input_type = [](const Operator*, std::size_t index) {
      const Argument& argument = signature_of<Op>().inputs[index];
      return argument.half_too ? kAnyType : element_type_of(argument.dtype);
    };
    to.output_type = [](const Operator*, std::size_t index) {
      return element_type_of(signature_of<Op>().outputs[index].dtype);
    };
    to.input_presence = [](const Operator*, std::size_t) { return kRequired; };
    to.output_presence = [](const Operator*, std::size_t index) {
      return signature_of<Op>().outputs[index].optional ? kOptional : kRequired;
    };
    to.input_memory = [](const Operator*, std::size_t) { return kDefaultMemory; };
    to.first_version = [](const Operator*) { return Op::kVersion; };
    to.create_kernel = [](const Operator*, const void* const*, const KernelInfo* info, void** kernel) {
      *kernel = nullptr;
      return guarded(signature_of<Op>().name, [&] { *kernel = new Kernel<Op>(info); });
    };
    to.destroy_kernel = [](void* kernel) { delete static_cast<Kernel<Op>*>(kernel); };
    to.compute = [](void* kernel, KernelContext* context) {
      return guarded(signature_of<Op>().name, [&] { static_cast<Kernel<Op>*>(kernel)->compute(context); });
    };
    to.infer_shapes = [](const Operator*, ShapeContext* context) {
      return guarded(signature_of<Op>().name, [&] { ShapeInference<Op>(context).run(); });
    };
    return to;
  }();
  return made;
}

}  // namespace fastface::onnx
