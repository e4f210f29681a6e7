// A process does not grow from step to step.
#include "comigs/model/host_memory.hpp"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <fmt/format.h>

#include <malloc.h>

#include <boost/test/unit_test.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace comigs::model {

namespace {

// What the C library has from the system.
std::size_t held() { return mallinfo2().arena; }

at::Tensor numbers(std::int64_t count) { return at::empty({count}); }

}  // namespace

BOOST_AUTO_TEST_SUITE(host_memory)

BOOST_AUTO_TEST_CASE(tensors_are_aligned) {
  keep_host_memory();
  for (const std::int64_t count : {1, 15, 16, 17, 1000, 12345})
    BOOST_TEST(reinterpret_cast<std::uintptr_t>(numbers(count).data_ptr()) % 64 == 0U);
  BOOST_TEST(numbers(0).data_ptr() == nullptr);
}

BOOST_AUTO_TEST_CASE(what_was_freed_serves_again_whatever_lies_around_it) {
  keep_host_memory();
  std::vector<at::Tensor> kept, blocks;
  for (int i = 0; i < 50; ++i) {  // blocks that no other free one lies beside
    blocks.push_back(numbers(100'000));
    kept.push_back(numbers(100));
  }
  const std::size_t before = held();
  for (int step = 0; step < 20; ++step) {
    blocks.clear();
    for (int i = 0; i < 50; ++i) blocks.push_back(numbers(100'000));
    kept.push_back(numbers(100));
  }
  BOOST_TEST(held() < before + (1U << 20));
}

// As libraries under LibTorch take it.
BOOST_AUTO_TEST_CASE(memory_without_a_tensor) {
  keep_host_memory();
  BOOST_TEST(c10::GetCPUAllocator() != c10::GetDefaultCPUAllocator());
  c10::Allocator& memory = *c10::GetCPUAllocator();
  void* const some = memory.raw_allocate(1000);
  BOOST_TEST(reinterpret_cast<std::uintptr_t>(some) % 64 == 0U);
  memory.raw_deallocate(some);
}

BOOST_AUTO_TEST_CASE(more_than_there_can_be_is_refused) {
  keep_host_memory();
  for (const std::size_t bytes : {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 4})
    BOOST_CHECK_EXCEPTION(
        c10::GetCPUAllocator()->allocate(bytes), std::exception, [&](const std::exception& error) {
          return std::string(error.what()).find(fmt::format("tried to allocate {} bytes", bytes)) !=
                 std::string::npos;
        });
}

BOOST_AUTO_TEST_CASE(contents_survive_a_larger_size) {
  keep_host_memory();
  at::Tensor some = at::arange(10, at::kFloat);
  some.resize_({100'000});
  BOOST_TEST(some.narrow(0, 0, 10).equal(at::arange(10, at::kFloat)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
