// A program of somebody else's: it opens ONNX Runtime, then fastface's operators, then an exported renderer, and renders.
//   onnx_renderer LIBONNXRUNTIME LIBFASTFACE_ORT GRAPH COEFFICIENTS COUNT HEIGHT WIDTH FRAMES
// COEFFICIENTS is a file of COUNT rows of float32; FRAMES gets COUNT * HEIGHT * WIDTH * 3 bytes.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "onnx/abi.h"

using namespace fastface::onnx;

namespace {

struct Env;
struct Session;
constexpr Slot<Status* (*)(int, const char*, Env**), 3> create_env;
constexpr Slot<Status* (*)(const Env*, const char*, const SessionOptions*, Session**), 7> create_session;
constexpr Slot<Status* (*)(Session*, const void*, const char* const*, const Value* const*, std::size_t,
                           const char* const*, std::size_t, Value**),
               9>
    run_session;
constexpr Slot<Status* (*)(SessionOptions**), 10> create_options;
constexpr Slot<Status* (*)(const MemoryInfo*, void*, std::size_t, const std::int64_t*, std::size_t, ElementType, Value**),
               49>
    tensor_over;
constexpr Slot<Status* (*)(int, int, MemoryInfo**), 69> cpu_memory;
constexpr Slot<void (*)(Env*), 92> release_env;
constexpr Slot<void (*)(MemoryInfo*), 94> release_memory;
constexpr Slot<void (*)(Session*), 95> release_session;
constexpr Slot<void (*)(Value*), 96> release_value;
constexpr Slot<void (*)(SessionOptions*), 100> release_options;
constexpr Slot<Status* (*)(SessionOptions*, const char*), 228> register_library;

Api api;

void check(Status* status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "%s\n", api(slot::error_message, static_cast<const Status*>(status)));
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const auto get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  api = Api(get_base()->table(kApiVersion));

  Env* env = nullptr;
  SessionOptions* options = nullptr;
  Session* session = nullptr;
  MemoryInfo* memory = nullptr;
  check(api(create_env, 3, "onnx_renderer", &env));
  check(api(create_options, &options));
  check(api(register_library, options, argv[2]));
  check(api(create_session, static_cast<const Env*>(env), static_cast<const char*>(argv[3]),
            static_cast<const SessionOptions*>(options), &session));

  std::ifstream file(argv[4], std::ios::binary);
  std::vector<char> coefficients((std::istreambuf_iterator<char>(file)), {});
  const std::int64_t count = std::atoll(argv[5]), height = std::atoll(argv[6]), width = std::atoll(argv[7]);
  const std::int64_t shape[] = {count, static_cast<std::int64_t>(coefficients.size() / sizeof(float)) / count};
  Value *input = nullptr, *frames = nullptr;
  check(api(cpu_memory, 0, 0, &memory));
  check(api(tensor_over, static_cast<const MemoryInfo*>(memory), static_cast<void*>(coefficients.data()),
            coefficients.size(), shape, std::size_t{2}, kTypeFloat32, &input));
  const char *input_names[] = {"coefficients"}, *output_names[] = {"frames"};
  const Value* inputs[] = {input};
  check(api(run_session, session, static_cast<const void*>(nullptr), input_names, inputs, std::size_t{1}, output_names,
            std::size_t{1}, &frames));
  void* pixels = nullptr;
  check(api(slot::tensor_data, frames, &pixels));
  std::ofstream(argv[8], std::ios::binary).write(static_cast<const char*>(pixels), count * height * width * 3);

  api(release_value, frames);
  api(release_value, input);
  api(release_memory, memory);
  api(release_session, session);
  api(release_options, options);
  api(release_env, env);
  return 0;
}
