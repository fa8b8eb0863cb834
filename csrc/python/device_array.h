// Arrays in a device's memory as Python holds them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/runtime.h"
#include "core/view.h"
#include "python/binder.h"
#include "python/dlpack.h"

namespace fastface {

// A stream with its own lifetime; arrays keep the last one that used them.
struct StreamHolder {
  Runtime* runtime = nullptr;
  Stream stream = nullptr;
  bool owned = false;
  StreamHolder(Runtime* of, Stream given, bool own) : runtime(of), stream(given), owned(own) {}
  StreamHolder(const StreamHolder&) = delete;
  StreamHolder& operator=(const StreamHolder&) = delete;
  ~StreamHolder();
};
using StreamPointer = std::shared_ptr<StreamHolder>;

// Holds the device for the thread while it lives.
class Scope {
 public:
  explicit Scope(Runtime* runtime) : runtime_(runtime), before_(runtime->enter()) {}
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { runtime_->leave(before_); }

 private:
  Runtime* runtime_;
  int before_;
};

// Memory, and the stream that used it last.
struct Piece {
  void* data = nullptr;
  StreamPointer last;
};

// One device; memory that is given back is kept for the next array of its size. Used with the interpreter lock held.
class Device {
 public:
  explicit Device(Runtime* runtime) : runtime_(runtime) {}
  Runtime* runtime() const { return runtime_; }
  Piece allocate(std::int64_t bytes);
  void release(Piece piece, std::int64_t bytes);
  // Makes `stream` wait for what `last` says, and sets that.
  void join(StreamPointer& last, const StreamPointer& stream) const;
  bool try_join(StreamPointer& last, const StreamPointer& stream) const;
  // While work is captured nothing may be given back to the driver.
  void set_capturing(bool capturing) { captures_ += capturing ? 1 : -1; }
  [[noreturn]] void fail(const std::string& what) const;

  static std::int64_t rounded(std::int64_t bytes);

 private:
  void drop_idle();
  Runtime* runtime_;
  std::multimap<std::int64_t, Piece> idle_;
  std::int64_t idle_bytes_ = 0;
  int captures_ = 0;
};

// A stream that reads what may not be written to. One of ours has done so when it is gone: it need not be kept.
struct Reader {
  Stream stream = nullptr;
  std::weak_ptr<StreamHolder> ours;
  StreamPointer other;
  StreamPointer holder() const { return other != nullptr ? other : ours.lock(); }
};

// Memory of an array and of its views: the device's own, or somebody else's, given back by `foreign`'s destructor.
struct Storage {
  Device* device = nullptr;
  void* data = nullptr;
  std::int64_t bytes = 0;
  std::shared_ptr<void> foreign;
  StreamPointer last;           // what used it last
  std::vector<Reader> readers;  // nobody waits for them before it is given back
  StreamPointer home;           // where the owner of foreign memory goes on
  void note_reader(const StreamPointer& stream);
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage();
};

struct DeviceArray {
  std::shared_ptr<Storage> storage;
  void* data = nullptr;
  dlpack::DataType type{};
  std::vector<std::int64_t> shape;
  bool contiguous = true;
  bool writeable = true;

  Device& device() const { return *storage->device; }
  std::int64_t items() const;
  std::int64_t bytes() const { return items() * type.bits / 8; }
  std::string type_name() const;
  std::string describe() const;
};

DeviceArray make_array(Device& device, std::vector<std::int64_t> shape, dlpack::DataType type);
dlpack::DataType type_of(const py::dtype& dtype);  // raises BadArgument for what no op takes

// Consumes and produces DLPack capsules.
DeviceArray adopt(Device& device, const py::object& value, const StreamPointer& stream);
py::capsule export_capsule(const DeviceArray& array, bool versioned);

}  // namespace fastface
