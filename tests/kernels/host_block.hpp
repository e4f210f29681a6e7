// The Block of src/kernels/block.hpp on the CPU: its threads one after the other, forwards or backwards.
// Where a kernel's text forgets a phase, the two orders give different results.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "block.hpp"

namespace comigs::kernels {

enum class Order { forwards, backwards };

// Threads [first, first + count) of a block.
template <int block_threads>
class HostThreads {
 public:
  template <class T>
  class Local {
   public:
    T& operator[](int thread) { return of_thread_[static_cast<std::size_t>(thread)]; }

   private:
    std::array<T, block_threads> of_thread_;
  };

  HostThreads(int first, int count, Order order) : first_(first), count_(count), order_(order) {}

  template <class Each>
  void each(const Each& f) const {
    for (int i = 0; i < count_; ++i) f(first_ + (order_ == Order::forwards ? i : count_ - 1 - i));
  }
  template <class Each>
  void phase(const Each& f) const {
    each(f);
  }
  [[nodiscard]] int index() const { return first_ / warp_lanes; }
  [[nodiscard]] std::uint32_t ballot(Local<bool>& flag) const {
    std::uint32_t bits = 0;
    for (int i = 0; i < count_; ++i) bits |= std::uint32_t{flag[first_ + i]} << i;
    return bits;
  }
  template <class T>
  void exchange(Local<T>& from, Local<T>& to, int bit) const {
    each([&](int thread) { to[thread] = from[thread ^ bit]; });
  }

 private:
  int first_, count_;
  Order order_;
};

template <int count>
class HostBlock : public HostThreads<count> {
 public:
  static constexpr int threads = count;

  HostBlock(std::size_t floats, Order order)
      : HostThreads<count>(0, count, order), order_(order), memory_(floats) {}

  [[nodiscard]] float* memory() { return memory_.data(); }
  template <class Each>
  void each_warp(const Each& f) const {
    for (int i = 0; i < count / warp_lanes; ++i) {
      const int warp = order_ == Order::forwards ? i : count / warp_lanes - 1 - i;
      HostThreads<count> of_warp(warp * warp_lanes, warp_lanes, order_);
      f(of_warp);
    }
  }

 private:
  Order order_;
  std::vector<float> memory_;
};

}  // namespace comigs::kernels
