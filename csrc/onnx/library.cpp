// libfastface_ort: the ops as custom operators of ONNX Runtime, in domain "fastface".
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "onnx/operator.h"

#define FF_EXPORT extern "C" __attribute__((visibility("default")))

namespace fastface::onnx {

Runtime runtime;

namespace {

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
}

Isa wanted_isa() {
  const char* wanted = std::getenv("FASTFACE_ISA");
  if (wanted == nullptr || *wanted == '\0') return best_isa();
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (isa_available(isa) && std::strcmp(wanted, isa_name(isa)) == 0) return isa;
  }
  refuse(std::string("FASTFACE_ISA names no instruction set of this machine: ") + wanted);
}

bool emulated() {
  const char* device = std::getenv("FASTFACE_ORT_DEVICE");
  if (device == nullptr || *device == '\0') return false;
  if (std::strcmp(device, "emulated") != 0)
    refuse(std::string("FASTFACE_ORT_DEVICE may be emulated and nothing else (a session's providers choose), got ") + device);
  return true;
}

template <Form kForm>
void register_operators(SessionOptions* options) {
  OperatorDomain* domain = nullptr;
  check(runtime.api(slot::create_domain, domain_of(kForm), &domain));
  Status* status = nullptr;
  const auto add = [&](const Operator& made) {
    if (status == nullptr) status = runtime.api(slot::domain_add, domain, &made);
  };
#define FF_ADD_OPERATOR(Struct, name)                                                               \
  add(emulated() ? operator_on<Struct, OnEmulated, kForm>() : operator_on<Struct, OnCpu, kForm>()); \
  if (cuda_table() != nullptr) add(operator_on<Struct, OnCuda, kForm>());
  FF_FOR_EACH_OP(FF_ADD_OPERATOR)
#undef FF_ADD_OPERATOR
  if (status == nullptr) status = runtime.api(slot::add_domain, options, domain);
  if (status != nullptr) {
    runtime.api(slot::release_domain, domain);
    throw Failure{status};
  }
  // Sessions refer to their domain and never own it; a few bytes for every set of options.
  static std::mutex mutex;
  static auto* const kept = new std::vector<OperatorDomain*>;
  const std::lock_guard<std::mutex> guard(mutex);
  kept->push_back(domain);
}

// An op's shapes for one frame, by letter.
class FrameShape {
 public:
  explicit FrameShape(const std::int64_t* sizes) : sizes_(sizes) {}
  template <class V>
  void input(const char*, V& view, const char* shape) {
    each_size(shape, [&](int axis, char letter, std::int64_t number) {
      view.shape[axis] = letter == 0 ? number : letter == 'B' ? 1 : sizes_[static_cast<unsigned char>(letter) & 127];
    });
  }
  template <class V>
  void output(const char* name, V& view, const char* shape) {
    input(name, view, shape);
  }
  template <class V>
  void optional_output(const char* name, V& view, const char* shape) {
    input(name, view, shape);
  }
  template <class T>
  void attribute(const char*, T&) {}
  void workspace(WorkspaceView&) {}

 private:
  const std::int64_t* sizes_;
};

template <class Op>
std::int64_t frame_workspace(const std::int64_t* sizes) {
  Op op;
  FrameShape shape(sizes);
  op.describe(shape);
  return entry_of<Op>(emulated_table()).workspace_bytes(op);
}

std::string quoted(const std::string& text) { return '"' + text + '"'; }

std::string as_json(const std::vector<Argument>& arguments) {
  std::string text = "[";
  for (const Argument& a : arguments)
    text += std::string(text.size() > 1 ? ", " : "") + "{\"name\": " + quoted(a.name) + ", \"shape\": " + quoted(a.shape) +
            ", \"dtype\": " + quoted(type_words(a.type)) +
            ", \"half_too\": " + (a.half_too ? "true" : "false") + ", \"optional\": " + (a.optional ? "true" : "false") + "}";
  return text + "]";
}

std::string as_json(const Signature& signature) {
  std::string attributes = "[";
  for (const Attribute& a : signature.attributes)
    attributes += std::string(attributes.size() > 1 ? ", " : "") + "{\"name\": " + quoted(a.name) +
                  ", \"whole\": " + (a.whole ? "true" : "false") + ", \"required\": " + (a.required ? "true" : "false") +
                  ", \"preset\": " + std::to_string(a.preset) + "}";
  return "{\"name\": " + quoted(signature.name) + ", \"op\": " + quoted(signature.op) +
         ", \"version\": " + std::to_string(signature.version) + ", \"inputs\": " + as_json(signature.inputs) +
         ", \"outputs\": " + as_json(signature.outputs) + ", \"attributes\": " + attributes + "]}";
}

}  // namespace
}  // namespace fastface::onnx

// What ONNX Runtime looks for in a library of operators.
FF_EXPORT fastface::onnx::Status* RegisterCustomOps(fastface::onnx::SessionOptions* options,
                                                    const fastface::onnx::ApiBase* base) {
  using namespace fastface::onnx;
  const Api api(base->table(kApiVersion));
  if (!api) {
    const std::string number = std::to_string(kApiVersion);
    const std::string message = "fastface's operators need version " + number +
                                " of ONNX Runtime's interface (release 1." + number + " or newer); this is " +
                                base->version() + " and does not have it";
    const Api first(base->table(1));  // every release so far has the first version's functions
    if (!first) {
      std::fprintf(stderr, "%s\n", message.c_str());
      return nullptr;  // there is no other way to say it; graphs with the operators will not load
    }
    return first(slot::create_status, kNotImplemented, message.c_str());
  }
  static std::mutex mutex;
  const std::lock_guard<std::mutex> guard(mutex);
  if (!runtime.api) runtime.api = api;
  return guarded("fastface", [&] {
    runtime.isa = wanted_isa();
    runtime.cores = usable_cores();
    register_operators<Form::kPlain>(options);
    register_operators<Form::kPlugin>(options);
  });
}

// The operators as JSON: what whoever writes a graph needs to know of them.
FF_EXPORT const char* fastface_operators() {
  using namespace fastface;
  using namespace fastface::onnx;
  static const std::string text = [] {
    std::string all;
#define FF_DESCRIBE_OPERATOR(Struct, name) all += (all.empty() ? "[" : ", ") + as_json(signature_of<Struct>());
    FF_FOR_EACH_OP(FF_DESCRIBE_OPERATOR)
#undef FF_DESCRIBE_OPERATOR
    return all + "]";
  }();
  return text.c_str();
}

// Bytes of workspace that a device needs for one frame of an operator; sizes by the letters of its shapes, 128 of them.
// Negative for an operator that there is not.
FF_EXPORT std::int64_t fastface_frame_workspace(const char* name, const std::int64_t* sizes) {
  using namespace fastface;
  using namespace fastface::onnx;
#define FF_MEASURE_OPERATOR(Struct, op) \
  if (std::strcmp(name, signature_of<Struct>().name) == 0) return frame_workspace<Struct>(sizes);
  FF_FOR_EACH_OP(FF_MEASURE_OPERATOR)
#undef FF_MEASURE_OPERATOR
  return -1;
}
