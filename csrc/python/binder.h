// Checks the arguments of an op against its own description and fills in its views, whatever the arrays are.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdlib>
#include <string>

#include "registry.h"

namespace fastface {

namespace py = pybind11;

[[noreturn]] inline void raise_error(const char* type, const std::string& message) {
  const py::object error = py::module_::import("fastface.errors").attr(type);
  PyErr_SetString(error.ptr(), message.c_str());
  throw py::error_already_set();
}

[[noreturn]] inline void raise_bad_argument(const std::string& message) { raise_error("BadArgument", message); }

inline const char* dtype_name(Dtype dtype) {
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

// What an op may know of an array: one that is not contiguous, of another type or on another device is none.
struct ArrayInfo {
  void* data = nullptr;
  bool writeable = false;
  int ndim = 0;
  std::int64_t shape[kMaxRank] = {0, 0, 0, 0};
};

// Takes the arguments in the order of the description. A letter in a shape is a size that must agree wherever it
// stands. `Arrays` says what an array is:
//   using Workspace;
//   bool read(py::handle value, Dtype dtype, ArrayInfo& array)  false unless a contiguous array of that type
//   std::string describe(py::handle value)
//   const char* kind()                                         what an array must be besides its shape and type
template <class Arrays>
class Binder {
 public:
  using Workspace = typename Arrays::Workspace;

  Binder(const char* op, const py::args& args, const Arrays& arrays) : op_(op), args_(args), arrays_(arrays) {}

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
    ArrayInfo half;
    view.dtype = arrays_.read(value, Dtype::kFloat16, half) ? Dtype::kFloat16 : Dtype::kFloat32;
    bind(name, value, view, shape, view.dtype, false, "float32 or float16");
  }
  void attribute(const char* name, int& value) { value = number<int>(name, "an integer"); }
  void attribute(const char* name, float& value) { value = number<float>(name, "a number"); }
  void workspace(WorkspaceView&) {
    const py::handle value = next("workspace");
    if (!py::isinstance<Workspace>(value))
      raise_bad_argument(op_ + ": workspace must be a " + Arrays::kWorkspaceName + ", got " + arrays_.describe(value));
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
                         (dtype_words != nullptr ? dtype_words : dtype_name(dtype)) + ", " + arrays_.kind() +
                         "C-contiguous, got " + arrays_.describe(value));
    };
    ArrayInfo array;
    if (!arrays_.read(value, dtype, array)) refuse();
    int axis = 0;
    for (const char* at = shape; *at != '\0'; ++axis) {
      if (axis >= array.ndim) refuse();
      const std::int64_t size = array.shape[axis];
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
    if (axis != array.ndim) refuse();
    if (written && !array.writeable) raise_bad_argument(op_ + ": " + name + " is read-only");
    view.data = static_cast<decltype(view.data)>(array.data);
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
  const Arrays& arrays_;
  std::size_t at_ = 0;
  Sizes sizes_;
  Workspace* workspace_ = nullptr;
};

void bind_devices(py::module_& m);  // device.cpp

}  // namespace fastface
