#include "comigs/model/host_memory.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace comigs::model {

namespace {

constexpr std::size_t alignment = 64;  // of LibTorch's own, and of a cache line

// What malloc gave lies in front of what it was aligned to: there is room, for malloc aligns to 16 bytes
// itself.
void*& origin_of(void* aligned) { return static_cast<void**>(aligned)[-1]; }

void release(void* aligned) {
  if (aligned != nullptr) std::free(origin_of(aligned));
}

class HostAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* const aligned = bytes > 0 ? take(bytes) : nullptr;
    return {aligned, aligned, &release, c10::DeviceType::CPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void* take(std::size_t bytes) {
    const bool possible = bytes <= PTRDIFF_MAX - alignment;
    void* const origin = possible ? std::malloc(bytes + alignment) : nullptr;
    if (origin == nullptr)
      C10_THROW_ERROR(OutOfMemoryError, fmt::format("no memory: tried to allocate {} bytes", bytes));
    const auto address = reinterpret_cast<std::uintptr_t>(origin);
    void* const aligned = static_cast<std::byte*>(origin) + (alignment - address % alignment);
    origin_of(aligned) = origin;
    return aligned;
  }
};

}  // namespace

void keep_host_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);                     // never
  static auto* const allocator = new HostAllocator;  // outlives whatever LibTorch has at the end
  c10::SetCPUAllocator(allocator);
}

}  // namespace comigs::model
