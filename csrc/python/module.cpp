// fastface._core: the ops on NumPy arrays. Each op's own description says which arrays it takes and gives; this file
// checks them against it, lends the op a workspace and runs it without the interpreter lock. It owns no array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <new>
#include <string>

#include "python/binder.h"

namespace fastface {
namespace {

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

// ---- NumPy arrays

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

struct HostArrays {
  using Workspace = fastface::Workspace;
  static constexpr const char* kWorkspaceName = "Workspace";

  bool read(py::handle value, Dtype dtype, ArrayInfo& info) const {
    if (!py::isinstance<py::array>(value)) return false;
    const py::array array = py::reinterpret_borrow<py::array>(value);
    if (!has_dtype(array, dtype) || (array.flags() & py::array::c_style) == 0 || array.ndim() > kMaxRank) return false;
    info.data = const_cast<void*>(array.data());
    info.writeable = array.writeable();
    info.ndim = static_cast<int>(array.ndim());
    for (int axis = 0; axis < info.ndim; ++axis) info.shape[axis] = array.shape(axis);
    return true;
  }

  std::string describe(py::handle value) const {
    if (!py::isinstance<py::array>(value)) return py::str(py::type::of(value).attr("__name__"));
    const py::array array = py::reinterpret_borrow<py::array>(value);
    std::string text = std::string(py::str(array.attr("shape"))) + " " + std::string(py::str(array.dtype()));
    if ((array.flags() & py::array::c_style) == 0) text += ", not C-contiguous";
    return text;
  }

  const char* kind() const { return ""; }
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
  const HostArrays arrays;
  Binder<HostArrays> binder(Op::kName, args, arrays);
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
  FF_FOR_EACH_WHOLE(FF_BIND_OP)
#undef FF_BIND_OP
  bind_devices(m);

  active_isa.store(best_isa());
  if (const char* wanted = std::getenv("FASTFACE_ISA"); wanted != nullptr && *wanted != '\0') select_isa(wanted);
}
