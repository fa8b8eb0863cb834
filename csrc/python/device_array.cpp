#include "python/device_array.h"

#include <algorithm>
#include <utility>

namespace fastface {
namespace {

constexpr std::int64_t kMostIdle = std::int64_t{1} << 31;

const char* location_name(std::int32_t type) {
  switch (type) {
    case dlpack::kCpu:
      return "cpu";
    case dlpack::kCuda:
      return "cuda";
    case dlpack::kCudaHost:
      return "pinned host memory";
    case dlpack::kCudaManaged:
      return "managed memory";
    default:
      return "another kind of device";
  }
}

bool row_major(const dlpack::Tensor& tensor) {
  if (tensor.strides == nullptr) return true;
  std::int64_t expected = 1;
  for (int axis = 0; axis < tensor.ndim; ++axis)
    if (tensor.shape[axis] == 0) return true;
  for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
    if (tensor.shape[axis] != 1 && tensor.strides[axis] != expected) return false;
    expected *= tensor.shape[axis];
  }
  return true;
}

// What an exported array keeps alive.
template <class Struct>
struct Exported {
  Struct managed;
  std::shared_ptr<Storage> storage;
  std::vector<std::int64_t> shape, strides;
};

template <class Struct>
Exported<Struct>* make_export(const DeviceArray& array) {
  auto* exported = new Exported<Struct>;
  exported->storage = array.storage;
  exported->shape = array.shape;
  exported->strides.assign(array.shape.size(), 1);
  for (std::size_t axis = array.shape.size(); axis-- > 1;)
    exported->strides[axis - 1] = exported->strides[axis] * array.shape[axis];
  dlpack::Tensor& tensor = exported->managed.tensor;
  tensor.data = array.data;
  tensor.device = {array.device().runtime()->dlpack_type(), 0};
  tensor.ndim = static_cast<std::int32_t>(array.shape.size());
  tensor.dtype = array.type;
  tensor.shape = exported->shape.data();
  tensor.strides = exported->strides.data();
  tensor.byte_offset = 0;
  exported->managed.context = exported;
  exported->managed.deleter = [](Struct* self) {
    // Whoever deletes it need not hold the interpreter lock; the device's list of idle memory wants it.
    if (Py_IsInitialized() == 0) return;
    const py::gil_scoped_acquire lock;
    delete static_cast<Exported<Struct>*>(self->context);
  };
  return exported;
}

template <class Struct>
py::capsule capsule_of(Struct* managed, const char* name) {
  // A consumer renames the capsule and calls the deleter itself.
  PyObject* made = PyCapsule_New(managed, name, [](PyObject* capsule) {
    const char* now = PyCapsule_GetName(capsule);
    if (now == nullptr || std::string(now).rfind("used_", 0) == 0) return;
    auto* unused = static_cast<Struct*>(PyCapsule_GetPointer(capsule, now));
    if (unused != nullptr) unused->deleter(unused);
  });
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::capsule>(made);
}

template <class Struct>
std::shared_ptr<void> take(const py::capsule& capsule, const char* used) {
  auto* managed = static_cast<Struct*>(PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr())));
  PyCapsule_SetName(capsule.ptr(), used);
  return std::shared_ptr<void>(managed, [](void* raw) {
    auto* done = static_cast<Struct*>(raw);
    if (done->deleter != nullptr) done->deleter(done);
  });
}

}  // namespace

StreamHolder::~StreamHolder() {
  if (!owned) return;
  const Scope scope(runtime);
  runtime->wait(stream);
  runtime->drop_stream(stream);
}

// ---- memory

std::int64_t Device::rounded(std::int64_t bytes) {
  std::int64_t step = 512;  // an eighth of the size at most is lost
  while (step * 16 < bytes) step *= 2;
  return bytes <= 0 ? step : (bytes + step - 1) / step * step;
}

Piece Device::allocate(std::int64_t bytes) {
  const std::int64_t size = rounded(bytes);
  if (const auto found = idle_.find(size); found != idle_.end()) {
    Piece piece = std::move(found->second);
    idle_.erase(found);
    idle_bytes_ -= size;
    return piece;
  }
  const Scope scope(runtime_);
  void* memory = runtime_->allocate(size);
  if (memory == nullptr && !idle_.empty()) {
    drop_idle();
    memory = runtime_->allocate(size);
  }
  if (memory == nullptr) fail("cannot allocate " + std::to_string(size) + " bytes");
  return {memory, nullptr};
}

void Device::release(Piece piece, std::int64_t bytes) {
  const std::int64_t size = rounded(bytes);
  if (idle_bytes_ + size > kMostIdle && captures_ == 0) {
    const Scope scope(runtime_);
    runtime_->release(piece.data);
    return;
  }
  idle_.emplace(size, std::move(piece));
  idle_bytes_ += size;
}

void Device::drop_idle() {
  for (const auto& [size, piece] : idle_) runtime_->release(piece.data);
  idle_.clear();
  idle_bytes_ = 0;
}

bool Device::try_join(StreamPointer& last, const StreamPointer& stream) const {
  if (last != nullptr && last->stream != stream->stream && !runtime_->follow(stream->stream, last->stream)) return false;
  last = stream;
  return true;
}

void Device::join(StreamPointer& last, const StreamPointer& stream) const {
  if (!try_join(last, stream)) fail("cannot order two streams");
}

void Device::fail(const std::string& what) const {
  raise_error("ProviderUnavailable", std::string(runtime_->kind()) + ": " + what + ": " + runtime_->error());
}

void Storage::note_reader(const StreamPointer& stream) {
  readers.erase(std::remove_if(readers.begin(), readers.end(),
                               [&](const Reader& r) { return r.stream == stream->stream || r.holder() == nullptr; }),
                readers.end());
  readers.push_back({stream->stream, stream, stream->owned ? nullptr : stream});
}

// Whoever has the memory next waits for all who used it: its next array, or the stream of its owner.
Storage::~Storage() {
  if (device == nullptr || data == nullptr) return;
  const Scope scope(device->runtime());
  for (const Reader& reader : readers)
    if (const StreamPointer stream = reader.holder(); stream != nullptr) device->try_join(last, stream);
  if (foreign == nullptr) {
    device->release({data, last}, bytes);
  } else if (home != nullptr) {
    device->try_join(last, home);
  }
}

// ---- arrays

std::int64_t DeviceArray::items() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::string DeviceArray::type_name() const {
  if (type.code == dlpack::kBool) return "bool";
  if (type.code == dlpack::kBfloat) return "bfloat" + std::to_string(type.bits);
  const char* kind = type.code == dlpack::kFloat ? "float" : type.code == dlpack::kUint ? "uint" : "int";
  return kind + std::to_string(type.bits);
}

std::string DeviceArray::describe() const {
  std::string text = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis > 0 ? ", " : "") + std::to_string(shape[axis]);
  text += (shape.size() == 1 ? ",) " : ") ") + type_name() + " on " + device().runtime()->kind();
  return contiguous ? text : text + ", not C-contiguous";
}

dlpack::DataType type_of(const py::dtype& dtype) {
  const std::uint8_t bits = static_cast<std::uint8_t>(dtype.itemsize() * 8);
  if (dtype.byteorder() != '>') {
    if (dtype.kind() == 'f') return {dlpack::kFloat, bits, 1};
    if (dtype.kind() == 'i') return {dlpack::kInt, bits, 1};
    if (dtype.kind() == 'u') return {dlpack::kUint, bits, 1};
    if (dtype.kind() == 'b') return {dlpack::kBool, bits, 1};
  }
  raise_bad_argument("device arrays are numbers in the machine's byte order, got " + std::string(py::str(dtype)));
}

DeviceArray make_array(Device& device, std::vector<std::int64_t> shape, dlpack::DataType type) {
  DeviceArray array;
  array.shape = std::move(shape);
  array.type = type;
  for (const std::int64_t size : array.shape)
    if (size < 0) raise_bad_argument("the sizes of an array must not be negative");
  auto storage = std::make_shared<Storage>();
  storage->bytes = array.bytes();
  Piece piece = device.allocate(storage->bytes);
  storage->data = piece.data;
  storage->last = std::move(piece.last);
  storage->device = &device;
  array.storage = std::move(storage);
  array.data = array.storage->data;
  return array;
}

DeviceArray adopt(Device& device, const py::object& value, const StreamPointer& stream) {
  Runtime* runtime = device.runtime();
  const auto refuse = [&](const std::string& got) {
    raise_bad_argument(std::string("wanted an array on ") + runtime->kind() + ", got " + got);
  };
  if (!py::hasattr(value, "__dlpack__") || !py::hasattr(value, "__dlpack_device__"))
    refuse(py::str(py::type::of(value).attr("__name__")));
  const py::tuple place = value.attr("__dlpack_device__")();
  const int type = place[0].cast<int>(), id = place[1].cast<int>();
  if (type != runtime->dlpack_type() || id != 0)
    refuse(std::string("one on ") + location_name(type) + (id != 0 ? ":" + std::to_string(id) : ""));
  py::object made;
  try {
    if (type == dlpack::kCuda) {
      // 1 is the protocol's name for the legacy default stream.
      const auto handle = reinterpret_cast<std::intptr_t>(stream->stream);
      made = value.attr("__dlpack__")(py::arg("stream") = handle == 0 ? 1 : handle);
    } else {
      made = value.attr("__dlpack__")();
    }
  } catch (const py::error_already_set& error) {  // one that is read-only, or that needs a gradient
    refuse("one that cannot be shared: " + std::string(py::str(error.value())));
  }
  if (!PyCapsule_CheckExact(made.ptr())) refuse("no DLPack capsule");
  const py::capsule capsule = py::reinterpret_borrow<py::capsule>(made);
  const std::string name = capsule.name() == nullptr ? "" : capsule.name();
  dlpack::Tensor tensor{};
  bool read_only = false;
  std::shared_ptr<void> foreign;
  if (name == "dltensor_versioned") {
    foreign = take<dlpack::Versioned>(capsule, "used_dltensor_versioned");
    const auto* managed = static_cast<dlpack::Versioned*>(foreign.get());
    if (managed->major != 1) refuse("DLPack version " + std::to_string(managed->major));
    tensor = managed->tensor;
    read_only = (managed->flags & dlpack::kReadOnly) != 0;
  } else if (name == "dltensor") {
    foreign = take<dlpack::Managed>(capsule, "used_dltensor");
    tensor = static_cast<dlpack::Managed*>(foreign.get())->tensor;
  } else {
    refuse("no DLPack capsule");
  }
  DeviceArray array;
  array.storage = std::make_shared<Storage>();
  array.storage->device = &device;
  array.storage->foreign = std::move(foreign);
  array.storage->data = static_cast<unsigned char*>(tensor.data) + tensor.byte_offset;
  array.data = array.storage->data;
  array.type = tensor.dtype;
  array.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  array.contiguous = row_major(tensor) && tensor.dtype.lanes == 1;
  array.writeable = !read_only;
  // The producer's work is awaited there and nowhere else.
  array.storage->last = array.storage->home = stream;
  if (reinterpret_cast<std::uintptr_t>(array.data) % (tensor.dtype.bits < 8 ? 1 : tensor.dtype.bits / 8) != 0)
    refuse("one whose memory is not aligned to its numbers");
  array.storage->bytes = array.bytes();
  return array;
}

py::capsule export_capsule(const DeviceArray& array, bool versioned) {
  if (!array.contiguous) raise_bad_argument("only contiguous arrays are handed on, got " + array.describe());
  if (!versioned) return capsule_of(&make_export<dlpack::Managed>(array)->managed, "dltensor");
  auto* exported = make_export<dlpack::Versioned>(array);
  exported->managed.major = 1;
  exported->managed.minor = 0;
  exported->managed.flags = array.writeable ? 0 : dlpack::kReadOnly;
  return capsule_of(&exported->managed, "dltensor_versioned");
}

}  // namespace fastface
