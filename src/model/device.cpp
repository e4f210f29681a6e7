#include "comigs/model/device.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <latch>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/kernels/instruction_set.hpp"
#include "comigs/model/host_memory.hpp"

#ifdef COMIGS_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#endif

namespace comigs::model {

int visible_gpus() {
#ifdef COMIGS_CUDA
  return c10::cuda::device_count();
#else
  return 0;
#endif
}

namespace {

// What comigs was built with; 0: without CUDA.
constexpr int cuda_version =
#ifdef COMIGS_CUDA
    CUDART_VERSION / 1000;
#else
    0;
#endif

// Of the driver's first line, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb ..."; empty
// where there is none.
std::string driver_version(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string word;
  while (stream >> word)
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos)
      return word;
  return {};
}

// The oldest driver, by its first number, that runs programs of a CUDA version; 0: not known.
int oldest_driver(int cuda) { return cuda == 12 ? 525 : cuda == 13 ? 580 : 0; }

bool has_nvidia_devices(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("nvidia") && name.size() > 6 &&
        name.find_first_not_of("0123456789", 6) == std::string::npos)
      return true;
  }
  return false;
}

}  // namespace

std::string why_no_gpu(const std::filesystem::path& root) {
  if (!has_nvidia_devices(root / "dev")) return {};
  if (cuda_version == 0) return "this comigs was built without CUDA (the preset 'cuda' builds it)";
  const std::string driver = driver_version(root / "proc/driver/nvidia/version");
  const int oldest = oldest_driver(cuda_version);
  if (!driver.empty() && std::atoi(driver.c_str()) < oldest)
    return fmt::format(
        "NVIDIA's driver {} is too old: CUDA {}, which this comigs was built with, needs {} or newer", driver,
        cuda_version, oldest);
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return fmt::format("the driver{}{} shows none to this process ({})", driver.empty() ? "" : " ", driver,
                     visible != nullptr ? fmt::format("CUDA_VISIBLE_DEVICES={}", visible)
                                        : std::string("does the job ask for one?"));
}

c10::Device bind_gpu([[maybe_unused]] int local_rank) {
#ifdef COMIGS_CUDA
  const int gpus = visible_gpus();
  if (gpus == 0) {
    const std::string why = why_no_gpu();
    throw ConfigError(
        fmt::format("--device cuda: no CUDA device is visible to this rank{}{}; use --device cpu{}",
                    why.empty() ? "" : ": ", why, why.empty() ? " or give the job GPUs" : ""));
  }
  // Its kernels register themselves when it is loaded, before LibTorch looks for them for the first time.
  // Linked, it would cost every process 130 MB of its own and a second to start, also where nothing runs on a
  // GPU.
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr)
    throw ConfigError(fmt::format("--device cuda: LibTorch's CUDA half cannot be loaded: {}", dlerror()));
  const auto index = static_cast<c10::DeviceIndex>(local_rank % gpus);
  c10::cuda::set_device(index);
  // Attention's backward pass, and products that are split, would else add up in another order each time.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  at::globalContext().setDeterministicAlgorithms(true, false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  // Partial sums of products that are split, gradients above all, would else be added in bfloat16.
  at::globalContext().setAllowBF16ReductionCuBLAS(false);
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  // Of its own: work can be recorded (see recording.hpp) on any stream but the default one.
  c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(false, index));
  return {c10::DeviceType::CUDA, index};
#else
  throw ConfigError(
      "--device cuda: this comigs was built without CUDA; use --device cpu or build with the preset 'cuda'");
#endif
}

std::string describe(const c10::Device& device) {
#ifdef COMIGS_CUDA
  if (device.is_cuda()) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device.index()) == cudaSuccess)
      return fmt::format("{} (cuda:{})", properties.name, static_cast<int>(device.index()));
  }
#endif
  return device.is_cpu()
             ? fmt::format("cpu, {} thread{}", at::get_num_threads(), at::get_num_threads() == 1 ? "" : "s")
             : device.str();
}

std::string processor() {
  std::ifstream lines("/proc/cpuinfo");
  std::string name = "a processor without a name", line;
  while (std::getline(lines, line))
    if (line.starts_with("model name")) {
      name = line.substr(std::min(line.find(": ") + 2, line.size()));
      break;
    }
  return fmt::format("{}, {}, kernels {}", name, at::get_cpu_capability(), kernels::instruction_set());
}

std::string arithmetic(const c10::Device& device) {
  const std::string name = describe(device);
  return fmt::format("{}, {}", device.is_cuda() ? name.substr(0, name.rfind(" (")) : name, processor());
}

std::string identity([[maybe_unused]] const c10::Device& device) {
#ifdef COMIGS_CUDA
  if (device.is_cuda()) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device.index()) == cudaSuccess)
      return {properties.uuid.bytes, sizeof properties.uuid.bytes};
  }
#endif
  return {};
}

namespace {

// LibTorch waits for ever for threads that it cannot have; each of its two pools has so many.
void check_threads(int count) {
  std::latch end(1);
  std::vector<std::jthread> threads;
  std::string reason;
  try {
    for (int i = 0; i < 2 * count; ++i) threads.emplace_back([&] { end.wait(); });
  } catch (const std::system_error& error) {
    reason = error.what();
  }
  end.count_down();
  threads.clear();
  if (!reason.empty())
    throw ConfigError(
        fmt::format("--threads: found {}, which this process may not start ({}); expected fewer, or "
                    "higher limits (ulimit -u and -v, the control group's pids.max)",
                    count, reason));
}

}  // namespace

void set_up_host(int threads) {
  check_threads(threads);
  keep_host_memory();
  at::set_num_interop_threads(1);
  at::set_num_threads(threads);
}

void* current_stream([[maybe_unused]] const c10::Device& device) {
#ifdef COMIGS_CUDA
  if (device.is_cuda()) return c10::cuda::getCurrentCUDAStream(device.index()).stream();
#endif
  return nullptr;
}

void synchronize([[maybe_unused]] const c10::Device& device) {
#ifdef COMIGS_CUDA
  if (device.is_cuda()) c10::cuda::device_synchronize();
#endif
}

std::int64_t gpu_memory_bytes() {
#ifdef COMIGS_CUDA
  std::size_t unused = 0, all = 0;
  if (cudaMemGetInfo(&unused, &all) == cudaSuccess) return static_cast<std::int64_t>(all);
#endif
  return 0;
}

std::int64_t peak_memory_bytes([[maybe_unused]] const c10::Device& device) {
#ifdef COMIGS_CUDA
  if (device.is_cuda())
    return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).reserved_bytes[0].peak;
#endif
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace comigs::model
