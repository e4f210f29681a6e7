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
  // As the PTX manual has the fragments of movmatrix.m8n8.b16 and mma.m16n8k8 with .bf16, lane by lane.
  template <class Of>
  void transpose(const Of& of, Local<std::uint32_t>& to) const {
    Matrix<std::uint16_t, 8, 8> matrix{};
    each([&](int thread) { halves(of(thread), matrix.at(row(thread)), column(thread)); });
    each([&](int thread) {
      const auto number = [&](std::size_t i) { return matrix.at(column(thread) + i).at(row(thread)); };
      to[thread] = std::uint32_t{number(0)} | std::uint32_t{number(1)} << 16;
    });
  }
  template <class Sum, class A, class B>
  void multiply_add(const Sum& sum, const A& a, const B& b) const {
    Matrix<std::uint16_t, 16, 8> left{};
    Matrix<std::uint16_t, 8, 8> right{};  // transposed: a lane has rows of a column
    each([&](int thread) {
      const auto rows = a(thread);
      halves(rows.at[0], left.at(row(thread)), column(thread));
      halves(rows.at[1], left.at(row(thread) + 8), column(thread));
      halves(b(thread), right.at(row(thread)), column(thread));
    });
    each([&](int thread) {
      for (std::size_t i = 0; i < 4; ++i)
        for (std::size_t k = 0; k < 8; ++k)
          sum(thread).at[i] += to_float(left.at(row(thread) + i / 2 * 8).at(k)) *
                               to_float(right.at(column(thread) + i % 2).at(k));
    });
  }

 private:
  template <class T, std::size_t rows, std::size_t columns>
  using Matrix = std::array<std::array<T, columns>, rows>;

  static std::size_t row(int thread) { return static_cast<std::size_t>(thread % warp_lanes / 4); }
  static std::size_t column(int thread) { return static_cast<std::size_t>(thread % 4 * 2); }
  static void halves(std::uint32_t both, std::array<std::uint16_t, 8>& row, std::size_t column) {
    row.at(column) = static_cast<std::uint16_t>(both & 0xFFFF);
    row.at(column + 1) = static_cast<std::uint16_t>(both >> 16);
  }

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

/// text(block), its threads in this order.
template <int count, class Text>
void run_block(std::size_t floats, Order order, const Text& text) {
  HostBlock<count> block(floats, order);
  text(block);
}

}  // namespace comigs::kernels
