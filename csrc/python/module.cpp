// fastface._core: the ops on NumPy arrays. Each op's own description says which arrays it takes and gives; this file
// checks them against it, lends the op a workspace and runs it without the interpreter lock. It owns no array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <new>
#include <string>

#include "registry.h"

namespace py = pybind11;

namespace fastface {
namespace {

[[noreturn]] void raise_bad_argument(const std::string& message) {
  const py::object type = py::module_::import("fastface.errors").attr("BadArgument");
  PyErr_SetString(type.ptr(), message.c_str());
  throw py::error_already_set();
}

// ---- workspace

// Grows to the largest need it has seen and stays there; used by one call at a time.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { release(); }

  bool acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void yield() { busy_.store(false, std::memory_order_release); }

  WorkspaceView reserve(std::int64_t bytes) {
    if (bytes > bytes_) {
      release();
      data_ = static_cast<unsigned char*>(
          ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{kWorkspaceAlignment}));
      bytes_ = bytes;
    }
    return {data_, bytes_};
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  void release() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t{kWorkspaceAlignment});
    data_ = nullptr;
    bytes_ = 0;
  }
  unsigned char* data_ = nullptr;
  std::int64_t bytes_ = 0;
  std::atomic<bool> busy_{false};
};

class WorkspaceLoan {
 public:
  WorkspaceLoan(Workspace& workspace, const char* op) : workspace_(workspace) {
    if (!workspace_.acquire())
      raise_bad_argument(std::string(op) + ": workspace is in use by another thread; give each thread its own");
  }
  WorkspaceLoan(const WorkspaceLoan&) = delete;
  WorkspaceLoan& operator=(const WorkspaceLoan&) = delete;
  ~WorkspaceLoan() { workspace_.yield(); }

 private:
  Workspace& workspace_;
};

// ---- checking arrays against an op's description

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::kFloat32;
};
template <>
struct DtypeOf<std::int32_t> {
  static constexpr Dtype value = Dtype::kInt32;
};
template <>
struct DtypeOf<std::uint8_t> {
  static constexpr Dtype value = Dtype::kUint8;
};

const char* dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return "float32";
    case Dtype::kFloat16:
      return "float16";
    case Dtype::kInt32:
      return "int32";
    case Dtype::kUint8:
      return "uint8";
  }
  return "";
}

bool has_dtype(const py::array& array, Dtype dtype) {
  const py::dtype type = array.dtype();
  if (type.byteorder() == '>') return false;
  switch (dtype) {
    case Dtype::kFloat32:
      return type.kind() == 'f' && type.itemsize() == 4;
    case Dtype::kFloat16:
      return type.kind() == 'f' && type.itemsize() == 2;
    case Dtype::kInt32:
      return type.kind() == 'i' && type.itemsize() == 4;
    case Dtype::kUint8:
      return type.kind() == 'u' && type.itemsize() == 1;
  }
  return false;
}

std::string describe_array(const py::handle& value) {
  if (!py::isinstance<py::array>(value)) return py::str(py::type::of(value).attr("__name__"));
  const py::array array = py::reinterpret_borrow<py::array>(value);
  std::string text = std::string(py::str(array.attr("shape"))) + " " + std::string(py::str(array.dtype()));
  if ((array.flags() & py::array::c_style) == 0) text += ", not C-contiguous";
  return text;
}

// Takes the arguments in the order of the description. A letter in a shape is a size that must agree wherever it
// stands.
class Binder {
 public:
  Binder(const char* op, const py::args& args) : op_(op), args_(args) {}

  template <class T>
  void input(const char* name, View<const T>& view, const char* shape) {
    bind(name, next(name), view, shape, DtypeOf<T>::value, false);
  }
  template <class T>
  void output(const char* name, View<T>& view, const char* shape) {
    bind(name, next(name), view, shape, DtypeOf<T>::value, true);
  }
  template <class T>
  void optional_output(const char* name, View<T>& view, const char* shape) {
    const py::handle value = next(name);
    if (!value.is_none()) bind(name, value, view, shape, DtypeOf<T>::value, true);
  }
  void input(const char* name, RealView& view, const char* shape) {
    const py::handle value = next(name);
    const bool half =
        py::isinstance<py::array>(value) && has_dtype(py::reinterpret_borrow<py::array>(value), Dtype::kFloat16);
    view.dtype = half ? Dtype::kFloat16 : Dtype::kFloat32;
    bind(name, value, view, shape, view.dtype, false, half ? "float16" : "float32 or float16");
  }
  void attribute(const char* name, int& value) { value = number<int>(name, "an integer"); }
  void attribute(const char* name, float& value) { value = number<float>(name, "a number"); }
  void workspace(WorkspaceView&) {
    const py::handle value = next("workspace");
    if (!py::isinstance<Workspace>(value))
      raise_bad_argument(op_ + ": workspace must be a Workspace, got " + describe_array(value));
    workspace_ = value.cast<Workspace*>();
  }

  Workspace& finish() {
    if (at_ != args_.size())
      raise_bad_argument(op_ + ": takes " + std::to_string(at_) + " arguments, got " + std::to_string(args_.size()));
    return *workspace_;
  }

 private:
  py::handle next(const char* name) {
    if (at_ >= args_.size()) raise_bad_argument(op_ + ": " + name + " is missing");
    return PyTuple_GET_ITEM(args_.ptr(), static_cast<Py_ssize_t>(at_++));
  }

  template <class T>
  T number(const char* name, const char* wanted) {
    const py::handle value = next(name);
    try {
      return value.cast<T>();
    } catch (const py::cast_error&) {
      raise_bad_argument(op_ + ": " + name + " must be " + wanted + ", got " + std::string(py::repr(value)));
    }
  }

  template <class V>
  void bind(const char* name, py::handle value, V& view, const char* shape, Dtype dtype, bool written,
            const char* dtype_words = nullptr) {
    const auto refuse = [&] {
      raise_bad_argument(op_ + ": " + name + " must be " + shape_words(shape) + " " +
                         (dtype_words != nullptr ? dtype_words : dtype_name(dtype)) + ", C-contiguous, got " +
                         describe_array(value));
    };
    if (!py::isinstance<py::array>(value)) refuse();
    const py::array array = py::reinterpret_borrow<py::array>(value);
    if (!has_dtype(array, dtype) || (array.flags() & py::array::c_style) == 0) refuse();
    int axis = 0;
    for (const char* at = shape; *at != '\0'; ++axis) {
      if (axis >= array.ndim()) refuse();
      const std::int64_t size = array.shape(axis);
      if (*at >= '0' && *at <= '9') {
        char* end = nullptr;
        if (size != std::strtoll(at, &end, 10)) refuse();
        at = end;
      } else {
        std::int64_t& known = sizes_[static_cast<unsigned char>(*at)];
        if (known >= 0 && known != size) refuse();
        known = size;
        ++at;
      }
      view.shape[axis] = size;
      while (*at == ' ') ++at;
    }
    if (axis != array.ndim()) refuse();
    if (written && !array.writeable()) raise_bad_argument(op_ + ": " + name + " is read-only");
    view.data = static_cast<decltype(view.data)>(const_cast<void*>(array.data()));
  }

  std::string shape_words(const char* shape) const {
    std::string words = "(";
    for (const char* at = shape; *at != '\0'; ++at) {
      const unsigned char c = static_cast<unsigned char>(*at);
      if (c == ' ') {
        words += ", ";
      } else if (sizes_[c] >= 0) {
        words += std::to_string(sizes_[c]);
      } else {
        words += *at;
      }
    }
    return words + ")";
  }

  struct Sizes {
    std::int64_t size[256];
    Sizes() {
      for (std::int64_t& s : size) s = -1;
    }
    std::int64_t& operator[](unsigned char c) { return size[c]; }
    std::int64_t operator[](unsigned char c) const { return size[c]; }
  };

  std::string op_;
  const py::args& args_;
  std::size_t at_ = 0;
  Sizes sizes_;
  Workspace* workspace_ = nullptr;
};

// ---- instruction set

std::atomic<Isa> active_isa{Isa::kBaseline};

std::string available_words() {
  std::string words;
  for (int i = 0; i < kIsaCount; ++i)
    if (isa_available(static_cast<Isa>(i)))
      words += (words.empty() ? "" : ", ") + std::string(isa_name(static_cast<Isa>(i)));
  return words;
}

void select_isa(const std::string& name) {
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (name == isa_name(isa) && isa_available(isa)) {
      active_isa.store(isa);
      return;
    }
  }
  raise_bad_argument("instruction set must be one of " + available_words() + " on this machine, got '" + name + "'");
}

// ---- module

template <class Op>
void call(const py::args& args) {
  Op op;
  Binder binder(Op::kName, args);
  op.describe(binder);
  Workspace& workspace = binder.finish();
  if (op.threads < 1)
    raise_bad_argument(std::string(Op::kName) + ": threads must be at least 1, got " + std::to_string(op.threads));
  const WorkspaceLoan loan(workspace, Op::kName);
  const Entry<Op>& entry = entry_of<Op>(op_table(active_isa.load(std::memory_order_relaxed)));
  op.workspace = workspace.reserve(entry.workspace_bytes(op));
  Status status = Status::kOk;
  {
    const py::gil_scoped_release release;
    status = entry.run(op);
  }
  if (status != Status::kOk) raise_bad_argument(std::string(Op::kName) + ": " + status_message(status));
}

}  // namespace
}  // namespace fastface

PYBIND11_MODULE(_core, m) {
  using namespace fastface;
  m.doc() = "fastface's compiled ops; fastface.ops is the documented way to them";
  py::class_<Workspace>(m, "Workspace", "Scratch memory that grows to the largest need and is kept between calls")
      .def(py::init<>())
      .def_property_readonly("nbytes", &Workspace::bytes);
  m.def("isa", [] { return std::string(isa_name(active_isa.load())); }, "The instruction set in use");
  m.def("available_isas", [] {
    py::list names;
    for (int i = 0; i < kIsaCount; ++i)
      if (isa_available(static_cast<Isa>(i))) names.append(isa_name(static_cast<Isa>(i)));
    return names;
  });
  m.def("select_isa", &select_isa, py::arg("name"));
#define FF_BIND_OP(Struct, name) m.def(#name, &call<Struct>);
  FF_FOR_EACH_OP(FF_BIND_OP)
#undef FF_BIND_OP

  active_isa.store(best_isa());
  if (const char* wanted = std::getenv("FASTFACE_ISA"); wanted != nullptr && *wanted != '\0') select_isa(wanted);
}
