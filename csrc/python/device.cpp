// fastface._core's devices: arrays in their memory, streams, graphs, and the ops on them. An op is enqueued and the call
// returns; arrays remember the stream that used them last, and whoever comes from another one waits for it there.
#include <pybind11/stl.h>

#include "python/device_array.h"

namespace fastface {
namespace {

using ArrayPointer = std::shared_ptr<DeviceArray>;

Device& device_of(Runtime* runtime) {
  // Never destroyed: a driver may be gone before static objects are.
  static std::map<Runtime*, Device*> known;
  Device*& device = known[runtime];
  if (device == nullptr) device = new Device(runtime);
  return *device;
}

Device& open_device(const std::string& kind) {
  if (kind == "emulated") return device_of(&emulated_runtime());
  if (kind != "cuda") raise_bad_argument("device must be cuda or emulated, got '" + kind + "'");
  Runtime* runtime = cuda_runtime();
  if (runtime == nullptr)
    raise_error("ProviderUnavailable",
                "device cuda: this build of fastface has no CUDA kernels; install it where nvcc is, or use device='cpu'");
  if (runtime->name().empty())
    raise_error("ProviderUnavailable",
                "device cuda: no usable NVIDIA GPU (" + runtime->error() + "); see nvidia-smi, or use device='cpu'");
  return device_of(runtime);
}

// ---- streams

// None and 0 are the legacy default stream; numbers are handles, as other libraries give them.
StreamPointer stream_of(Device& device, const py::object& value) {
  if (py::isinstance<StreamHolder>(value)) {
    StreamPointer given = value.cast<StreamPointer>();
    if (given->runtime != device.runtime()) raise_bad_argument("the stream is another device's");
    return given;
  }
  std::intptr_t handle = 0;
  if (!value.is_none()) {
    if (!py::isinstance<py::int_>(value))
      raise_bad_argument("stream must be a Stream, a handle or None, got " + std::string(py::repr(value)));
    handle = value.cast<std::intptr_t>();
  }
  return std::make_shared<StreamHolder>(device.runtime(), reinterpret_cast<Stream>(handle), false);
}

// Before `stream` uses the array. Those who only read need no order among themselves.
void join(const DeviceArray& array, const StreamPointer& stream) {
  Storage& storage = *array.storage;
  if (array.writeable) return array.device().join(storage.last, stream);
  StreamPointer arrived = storage.last;
  array.device().join(arrived, stream);
  storage.note_reader(stream);
}

// ---- ops

// Grows to the largest need it has seen and stays there. One stream waits for another that used it before.
class DeviceWorkspace {
 public:
  explicit DeviceWorkspace(Device& device) : device_(device) {}
  DeviceWorkspace(const DeviceWorkspace&) = delete;
  DeviceWorkspace& operator=(const DeviceWorkspace&) = delete;
  ~DeviceWorkspace() { release(); }
  Device& device() const { return device_; }
  std::int64_t bytes() const { return bytes_; }

  WorkspaceView reserve(std::int64_t bytes, const StreamPointer& stream) {
    if (bytes > bytes_) {
      release();
      piece_ = device_.allocate(bytes);
      bytes_ = bytes;
    }
    if (bytes > 0) join(stream);
    return {static_cast<unsigned char*>(piece_.data), bytes_};
  }
  void join(const StreamPointer& stream) {
    if (piece_.data != nullptr) device_.join(piece_.last, stream);
  }

 private:
  void release() {
    if (piece_.data != nullptr) device_.release(piece_, bytes_);
    piece_ = {};
    bytes_ = 0;
  }
  Device& device_;
  Piece piece_;
  std::int64_t bytes_ = 0;
};

bool has_type(const DeviceArray& array, Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return array.type.code == dlpack::kFloat && array.type.bits == 32;
    case Dtype::kFloat16:
      return array.type.code == dlpack::kFloat && array.type.bits == 16;
    case Dtype::kInt32:
      return array.type.code == dlpack::kInt && array.type.bits == 32;
    case Dtype::kUint8:
      return array.type.code == dlpack::kUint && array.type.bits == 8;
  }
  return false;
}

struct DeviceArrays {
  using Workspace = DeviceWorkspace;
  static constexpr const char* kWorkspaceName = "DeviceWorkspace";
  Device* device;
  std::string words;

  explicit DeviceArrays(Device& of) : device(&of), words("on " + std::string(of.runtime()->kind()) + ", ") {}

  bool read(py::handle value, Dtype dtype, ArrayInfo& info) const {
    if (!py::isinstance<DeviceArray>(value)) return false;
    const DeviceArray& array = value.cast<const DeviceArray&>();
    if (&array.device() != device || !array.contiguous || !has_type(array, dtype) || array.shape.size() > kMaxRank)
      return false;
    info.data = array.data;
    info.writeable = array.writeable;
    info.ndim = static_cast<int>(array.shape.size());
    for (int axis = 0; axis < info.ndim; ++axis) info.shape[axis] = array.shape[static_cast<std::size_t>(axis)];
    return true;
  }

  std::string describe(py::handle value) const {
    if (py::isinstance<DeviceArray>(value)) return value.cast<const DeviceArray&>().describe();
    if (py::isinstance<py::array>(value)) {
      const py::array array = py::reinterpret_borrow<py::array>(value);
      return std::string(py::str(array.attr("shape"))) + " " + std::string(py::str(array.dtype())) + " on cpu";
    }
    return py::str(py::type::of(value).attr("__name__"));
  }

  const char* kind() const { return words.c_str(); }
};

template <class Op>
void call(Device& device, const py::object& stream_given, const py::args& args) {
  Op op;
  const DeviceArrays arrays(device);
  Binder<DeviceArrays> binder(Op::kName, args, arrays);
  op.describe(binder);
  DeviceWorkspace& workspace = binder.finish();
  if (&workspace.device() != &device) raise_bad_argument(std::string(Op::kName) + ": workspace is another device's");
  const StreamPointer stream = stream_of(device, stream_given);
  const Scope scope(device.runtime());
  for (const py::handle value : args)
    if (py::isinstance<DeviceArray>(value)) join(value.cast<const DeviceArray&>(), stream);
  const DeviceEntry<Op>& entry = entry_of<Op>(device.runtime()->table());
  op.workspace = workspace.reserve(entry.workspace_bytes(op), stream);
  Status status = Status::kOk;
  {
    const py::gil_scoped_release release;
    status = entry.run(op, stream->stream);
  }
  if (status == Status::kLaunchFailed) device.fail(std::string(Op::kName) + ": " + status_message(status));
  if (status != Status::kOk) raise_bad_argument(std::string(Op::kName) + ": " + status_message(status));
}

// ---- copies

void wait_for(Device& device, const StreamPointer& stream) {
  bool waited = false;
  {
    const py::gil_scoped_release release;
    waited = device.runtime()->wait(stream->stream);
  }
  if (!waited) device.fail("work on the device failed");
}

bool same_shape(const DeviceArray& array, const py::array& host) {
  if (static_cast<std::size_t>(host.ndim()) != array.shape.size()) return false;
  for (std::size_t axis = 0; axis < array.shape.size(); ++axis)
    if (host.shape(static_cast<py::ssize_t>(axis)) != array.shape[axis]) return false;
  return true;
}

void check_host(const DeviceArray& array, const py::array& host, const char* what) {
  const dlpack::DataType type = type_of(host.dtype());
  const bool fits = same_shape(array, host) && type.code == array.type.code && type.bits == array.type.bits;
  if (fits && array.contiguous && (host.flags() & py::array::c_style) != 0) return;
  raise_bad_argument(std::string(what) + ": wanted a contiguous array like " + array.describe() + ", got " +
                     std::string(py::str(host.attr("shape"))) + " " + std::string(py::str(host.dtype())));
}

void transfer(const DeviceArray& array, void* to, const void* from, const StreamPointer& stream, bool wait) {
  Device& device = array.device();
  const Scope scope(device.runtime());
  join(array, stream);
  bool copied = false;
  {
    // To memory that is not pinned a copy waits for all that comes before it.
    const py::gil_scoped_release release;
    copied = device.runtime()->copy(to, from, array.bytes(), stream->stream);
  }
  if (!copied) device.fail("copy failed");
  if (wait) wait_for(device, stream);
}

StreamPointer stream_or_last(const DeviceArray& array, const py::object& given) {
  if (given.is_none() && array.storage->last != nullptr) return array.storage->last;
  return stream_of(array.device(), given);
}

void copy_from(const DeviceArray& array, const py::object& source, const py::object& stream_given, bool wait) {
  if (!array.writeable) raise_bad_argument("copy_from: the array is read-only");
  const StreamPointer stream = stream_or_last(array, stream_given);
  if (py::isinstance<DeviceArray>(source)) {
    const DeviceArray& other = source.cast<const DeviceArray&>();
    const bool fits = &other.device() == &array.device() && other.contiguous && array.contiguous &&
                      other.shape == array.shape && other.type_name() == array.type_name();
    if (!fits) raise_bad_argument("copy_from: wanted an array like " + array.describe() + ", got " + other.describe());
    const Scope scope(array.device().runtime());
    join(other, stream);
    transfer(array, array.data, other.data, stream, wait);
    return;
  }
  if (!py::isinstance<py::array>(source))
    raise_bad_argument("copy_from: wanted an array, got " + std::string(py::str(py::type::of(source).attr("__name__"))));
  const py::array host = py::reinterpret_borrow<py::array>(source);
  check_host(array, host, "copy_from");
  transfer(array, array.data, host.data(), stream, wait);
}

void copy_to(const DeviceArray& array, py::array host, const py::object& stream_given, bool wait) {
  check_host(array, host, "copy_to");
  if (!host.writeable()) raise_bad_argument("copy_to: the array is read-only");
  transfer(array, host.mutable_data(), array.data, stream_or_last(array, stream_given), wait);
}

py::array to_numpy(const DeviceArray& array, const py::object& stream) {
  std::vector<py::ssize_t> shape(array.shape.begin(), array.shape.end());
  py::array host(py::dtype(array.type_name()), shape);
  copy_to(array, host, stream, true);
  return host;
}

py::array pinned(Device& device, const std::vector<py::ssize_t>& shape, const py::dtype& dtype) {
  py::ssize_t bytes = dtype.itemsize();
  for (const py::ssize_t size : shape) bytes *= size;
  Runtime* runtime = device.runtime();
  const Scope scope(runtime);
  void* memory = runtime->allocate_pinned(bytes > 0 ? bytes : 1);
  if (memory == nullptr) device.fail("cannot allocate " + std::to_string(bytes) + " bytes of pinned memory");
  auto* held = new std::pair<Runtime*, void*>(runtime, memory);
  const py::capsule owner(held, [](void* raw) {
    auto* pair = static_cast<std::pair<Runtime*, void*>*>(raw);
    const Scope scope(pair->first);
    pair->first->release_pinned(pair->second);
    delete pair;
  });
  return py::array(dtype, shape, memory, owner);
}

// ---- array protocol

ArrayPointer part_of(const DeviceArray& array, const py::object& key) {
  if (key.is_none()) {
    auto raised = std::make_shared<DeviceArray>(array);
    raised->shape.insert(raised->shape.begin(), 1);
    return raised;
  }
  if (array.shape.empty()) throw py::index_error("an array without axes has no parts");
  if (!array.contiguous) raise_bad_argument("only contiguous arrays have parts, got " + array.describe());
  const std::int64_t size = array.shape[0], row = size > 0 ? array.bytes() / size : 0;
  auto part = std::make_shared<DeviceArray>(array);
  if (py::isinstance<py::slice>(key)) {
    py::ssize_t start = 0, stop = 0, step = 0, length = 0;
    if (!key.cast<py::slice>().compute(size, &start, &stop, &step, &length)) throw py::error_already_set();
    if (step != 1) raise_bad_argument("device arrays are cut in steps of 1");
    part->shape[0] = length;
    part->data = static_cast<unsigned char*>(array.data) + start * row;
    return part;
  }
  if (!py::isinstance<py::int_>(key)) raise_bad_argument("device arrays are indexed by a number, a slice of the first axis or None");
  std::int64_t index = key.cast<std::int64_t>();
  index += index < 0 ? size : 0;
  if (index < 0 || index >= size) throw py::index_error("index beyond the first axis");
  part->shape.erase(part->shape.begin());
  part->data = static_cast<unsigned char*>(array.data) + index * row;
  return part;
}

// The consumer's stream waits for what is under way. Asked for the CPU, a copy.
py::object to_dlpack(const ArrayPointer& array, const py::object& stream, const py::object& max_version,
                     const py::object& dl_device, const py::object& copy) {
  Device& device = array->device();
  Runtime* runtime = device.runtime();
  const bool versioned = !max_version.is_none() && max_version.cast<py::tuple>()[0].cast<int>() >= 1;
  if (!dl_device.is_none()) {
    const int wanted = dl_device.cast<py::tuple>()[0].cast<int>();
    if (wanted != runtime->dlpack_type()) {
      if (wanted != dlpack::kCpu || (!copy.is_none() && !copy.cast<bool>()))
        throw py::buffer_error("the array lies on " + std::string(runtime->kind()) + " and is copied to the CPU alone");
      const py::array host = to_numpy(*array, py::none());
      return host.attr("__dlpack__")();
    }
  }
  DeviceArray handed = *array;
  if (!copy.is_none() && copy.cast<bool>()) {
    handed = make_array(device, array->shape, array->type);
    copy_from(handed, py::cast(array), py::none(), false);
  }
  const StreamPointer last = handed.storage->last;
  if (last != nullptr && runtime->dlpack_type() != dlpack::kCuda) wait_for(device, last);
  if (last != nullptr && runtime->dlpack_type() == dlpack::kCuda) {
    std::intptr_t consumer = stream.is_none() ? 1 : stream.cast<std::intptr_t>();
    const Scope scope(runtime);
    if (consumer == 1) consumer = 0;
    if (consumer != -1 && reinterpret_cast<Stream>(consumer) != last->stream &&
        !runtime->follow(reinterpret_cast<Stream>(consumer), last->stream))
      device.fail("cannot order two streams");
  }
  return export_capsule(handed, versioned);
}

// ---- graphs and clocks

struct Graph {
  Runtime* runtime;
  void* graph;
  StreamPointer last;  // that it was replayed on
  Graph(Runtime* of, void* made) : runtime(of), graph(made) {}
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  // What it works on is not known here: nothing of that may be given to others before it is done.
  ~Graph() {
    const Scope scope(runtime);
    if (last != nullptr) runtime->wait(last->stream);
    runtime->drop_graph(graph);
  }
};

// Memory that is given back meanwhile is kept.
class Capturing {
 public:
  explicit Capturing(Device& device) : device_(device) { device.set_capturing(true); }
  Capturing(const Capturing&) = delete;
  Capturing& operator=(const Capturing&) = delete;
  ~Capturing() { device_.set_capturing(false); }

 private:
  Device& device_;
};

// What `work` enqueues on the stream, to be replayed; None where a device cannot capture.
py::object capture(Device& device, const StreamPointer& stream, const py::function& work) {
  Runtime* runtime = device.runtime();
  const Scope scope(runtime);
  if (!runtime->can_capture()) return py::none();
  if (!runtime->begin_capture(stream->stream)) device.fail("cannot begin a capture");
  const Capturing capturing(device);
  try {
    work();
  } catch (...) {
    if (void* graph = runtime->end_capture(stream->stream); graph != nullptr) runtime->drop_graph(graph);
    throw;
  }
  void* graph = runtime->end_capture(stream->stream);
  if (graph == nullptr) device.fail("cannot capture the work");
  return py::cast(std::make_shared<Graph>(runtime, graph));
}

void replay(Graph& graph, const py::object& stream_given, const py::args& touched) {
  Device& device = device_of(graph.runtime);
  const StreamPointer stream = stream_of(device, stream_given);
  const Scope scope(graph.runtime);
  device.join(graph.last, stream);
  for (const py::handle value : touched) {
    if (py::isinstance<DeviceWorkspace>(value)) {
      value.cast<DeviceWorkspace&>().join(stream);
    } else {
      join(value.cast<const DeviceArray&>(), stream);
    }
  }
  bool launched = false;
  {
    const py::gil_scoped_release release;
    launched = graph.runtime->replay(graph.graph, stream->stream);
  }
  if (!launched) device.fail("cannot replay a graph");
}

struct Mark {
  Runtime* runtime;
  void* mark;
  Mark(Runtime* of, void* made) : runtime(of), mark(made) {}
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  ~Mark() {
    const Scope scope(runtime);
    runtime->drop_mark(mark);
  }
};

std::shared_ptr<Mark> make_mark(Device& device, const py::object& stream_given) {
  const StreamPointer stream = stream_of(device, stream_given);
  const Scope scope(device.runtime());
  void* mark = device.runtime()->mark(stream->stream);
  if (mark == nullptr) device.fail("cannot mark a stream");
  return std::make_shared<Mark>(device.runtime(), mark);
}

double elapsed_ms(const Mark& from, const Mark& to) {
  const Scope scope(from.runtime);
  double ms = -1.0;
  {
    const py::gil_scoped_release release;
    ms = from.runtime->elapsed_ms(from.mark, to.mark);
  }
  if (ms < 0.0) device_of(from.runtime).fail("work on the device failed");
  return ms;
}

py::tuple shape_tuple(const DeviceArray& array) {
  py::tuple shape(array.shape.size());
  for (std::size_t axis = 0; axis < array.shape.size(); ++axis) shape[axis] = array.shape[axis];
  return shape;
}

void bind_array(py::module_& m) {
  py::class_<DeviceArray, ArrayPointer>(m, "DeviceArray", "An array in a device's memory; torch and CuPy take it by DLPack")
      .def_property_readonly("shape", &shape_tuple)
      .def_property_readonly("ndim", [](const DeviceArray& array) { return array.shape.size(); })
      .def_property_readonly("nbytes", &DeviceArray::bytes)
      .def_property_readonly("dtype", [](const DeviceArray& array) { return py::dtype(array.type_name()); })
      .def_property_readonly("device", [](const DeviceArray& array) { return &array.device(); },
                             py::return_value_policy::reference)
      .def_property_readonly("contiguous", [](const DeviceArray& array) { return array.contiguous; })
      .def_property_readonly("writeable", [](const DeviceArray& array) { return array.writeable; })
      .def("__len__", [](const DeviceArray& array) { return array.shape.empty() ? 0 : array.shape[0]; })
      .def("__getitem__", &part_of)
      .def("__repr__", [](const DeviceArray& array) { return "DeviceArray" + array.describe(); })
      .def("numpy", &to_numpy, py::arg("stream") = py::none(), "A copy on the host")
      .def("__array__",
           [](const DeviceArray& array, const py::object& dtype, const py::object& copy) -> py::object {
             if (!copy.is_none() && !copy.cast<bool>())
               throw py::value_error("a device array comes to the host as a copy only");
             const py::array host = to_numpy(array, py::none());
             return dtype.is_none() ? py::object(host) : host.attr("astype")(dtype);
           },
           py::arg("dtype") = py::none(), py::arg("copy") = py::none())
      .def("copy_from", &copy_from, py::arg("source"), py::arg("stream") = py::none(), py::arg("wait") = true)
      .def("copy_to", &copy_to, py::arg("host"), py::arg("stream") = py::none(), py::arg("wait") = true)
      .def("__dlpack_device__",
           [](const DeviceArray& array) { return py::make_tuple(array.device().runtime()->dlpack_type(), 0); })
      .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(), py::arg("copy") = py::none());
}

}  // namespace

void bind_devices(py::module_& m) {
  bind_array(m);
  py::class_<DeviceWorkspace>(m, "DeviceWorkspace", "Scratch memory on a device; for one stream at a time")
      .def(py::init<Device&>(), py::arg("device"), py::keep_alive<1, 2>())
      .def_property_readonly("nbytes", &DeviceWorkspace::bytes);
  py::class_<StreamHolder, StreamPointer>(m, "Stream", "An order of work on a device")
      .def_property_readonly("handle", [](const StreamHolder& s) { return reinterpret_cast<std::intptr_t>(s.stream); })
      .def("wait", [](const StreamPointer& s) {
        const Scope scope(s->runtime);
        wait_for(device_of(s->runtime), s);
      });
  py::class_<Graph, std::shared_ptr<Graph>>(m, "Graph", "Captured work")
      .def("replay", [](Graph& graph, const py::object& stream, const py::args& touched) {
        replay(graph, stream, touched);
      });
  py::class_<Mark, std::shared_ptr<Mark>>(m, "Mark", "A moment on a stream").def("elapsed_ms", &elapsed_ms, py::arg("to"));
  py::class_<Device, std::unique_ptr<Device, py::nodelete>> device(m, "Device", "A device and its memory");
  device.def_property_readonly("kind", [](const Device& d) { return d.runtime()->kind(); })
      .def_property_readonly("name", [](const Device& d) { return d.runtime()->name(); })
      .def("empty",
           [](Device& d, const std::vector<std::int64_t>& shape, const py::object& dtype) {
             return std::make_shared<DeviceArray>(make_array(d, shape, type_of(py::dtype::from_args(dtype))));
           },
           py::arg("shape"), py::arg("dtype"))
      .def("put",
           [](Device& d, const py::array& host, bool frozen) {
             const py::array whole = py::array::ensure(host, py::array::c_style);
             const std::vector<std::int64_t> shape(whole.shape(), whole.shape() + whole.ndim());
             auto array = std::make_shared<DeviceArray>(make_array(d, shape, type_of(whole.dtype())));
             copy_from(*array, whole, py::none(), true);
             array->storage->last = nullptr;  // it has arrived, for every stream
             array->writeable = !frozen;
             return array;
           },
           py::arg("array"), py::kw_only(), py::arg("frozen") = false, "A copy on the device")
      .def("adopt",
           [](Device& d, const py::object& value, const py::object& stream_given) {
             if (py::isinstance<DeviceArray>(value) && &value.cast<const DeviceArray&>().device() == &d)
               return value.cast<ArrayPointer>();
             const StreamPointer stream = stream_of(d, stream_given);
             const Scope scope(d.runtime());
             return std::make_shared<DeviceArray>(adopt(d, value, stream));
           },
           py::arg("array"), py::arg("stream") = py::none(), "Another library's array, without a copy")
      .def("pinned",
           [](Device& d, const std::vector<py::ssize_t>& shape, const py::object& dtype) {
             return pinned(d, shape, py::dtype::from_args(dtype));
           },
           py::arg("shape"), py::arg("dtype"), "A NumPy array that copies to and from the device need not stage")
      .def("stream",
           [](Device& d) {
             const Scope scope(d.runtime());
             Stream stream = nullptr;
             if (!d.runtime()->make_stream(stream)) d.fail("cannot make a stream");
             return std::make_shared<StreamHolder>(d.runtime(), stream, true);
           })
      .def("capture", &capture, py::arg("stream"), py::arg("work"))
      .def("mark", &make_mark, py::arg("stream") = py::none());
#define FF_BIND_OP(Struct, name)                                                                   \
  device.def(#name, [](Device& d, const py::object& stream, const py::args& args) { call<Struct>(d, stream, args); });
  FF_FOR_EACH_OP(FF_BIND_OP)
  FF_FOR_EACH_FRAME_STEP(FF_BIND_OP)
#undef FF_BIND_OP
  m.def("open_device", &open_device, py::arg("kind"), py::return_value_policy::reference);
  m.def("built_with_cuda", [] { return cuda_runtime() != nullptr; });
  m.def("emulated_order", &set_emulated_order, py::arg("order"),
        "The order in which the emulated device runs blocks and threads");
  m.def("emulated_lazy", &set_emulated_lazy, py::arg("lazy"), py::call_guard<py::gil_scoped_release>(),
        "Whether the emulated device puts work off until somebody waits for it");
}

}  // namespace fastface
