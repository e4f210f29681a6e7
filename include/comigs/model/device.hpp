// The device a rank computes on.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace comigs::model {

/// How many CUDA devices this process sees; 0 where comigs was built without CUDA.
[[nodiscard]] int visible_gpus();

/// Why a process that sees no GPU sees none, where the machine has one of NVIDIA's: comigs built without
/// CUDA, too old a driver, none given to the job. Empty where the machine has none. It is looked for under
/// `root`.
[[nodiscard]] std::string why_no_gpu(const std::filesystem::path& root = "/");

/// Makes GPU `local_rank` modulo the visible ones this process's own, and what it computes the same bits at
/// every run. Before any backward pass: LibTorch then looks for a GPU once and for all. Throws ConfigError,
/// with the reason, if there is none.
[[nodiscard]] c10::Device bind_gpu(int local_rank);

/// "cpu, 2 threads" or the card's name and number.
[[nodiscard]] std::string describe(const c10::Device& device);

/// The processor and the instructions that products and kernels on it use, which decide the last bits of what
/// is computed there: "AMD EPYC 7763, AVX2, kernels AVX2".
[[nodiscard]] std::string processor();
/// That, and the number of threads or the card's name: where it is alike, the same work has the same bits.
[[nodiscard]] std::string arithmetic(const c10::Device& device);

/// What tells GPUs of a node apart, by whatever numbers processes know them; empty for the CPU.
[[nodiscard]] std::string identity(const c10::Device& device);

/// Sets both of LibTorch's thread pools, and where its memory comes from (`keep_host_memory`). Before any
/// other use of LibTorch. Throws ConfigError where the process may not start so many threads.
void set_up_host(int threads);

/// The stream that LibTorch's kernels are queued on, as a cudaStream_t; null on the CPU.
[[nodiscard]] void* current_stream(const c10::Device& device);
/// Waits until all queued work is done. Nothing to do on the CPU.
void synchronize(const c10::Device& device);

/// Bytes of memory that the GPU of this process has; 0: unknown.
[[nodiscard]] std::int64_t gpu_memory_bytes();
/// Most bytes used so far: device memory on a GPU (a base that ranks share counts for the one that uploaded
/// it), else the process's resident set.
[[nodiscard]] std::int64_t peak_memory_bytes(const c10::Device& device);

}  // namespace comigs::model
