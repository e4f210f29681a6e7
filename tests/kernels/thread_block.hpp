// The Block of src/kernels/block.hpp with a thread of the operating system for each of its own. As on a
// device each runs all of a kernel's text, and meets others only where the text says so; so the thread
// sanitizer finds what a phase is missing for.
#pragma once

#include <array>
#include <atomic>
#include <barrier>
#include <bit>
#include <cstdint>
#include <deque>
#include <thread>
#include <type_traits>
#include <vector>

#include "block.hpp"

namespace comigs::kernels {

// Where a warp's lanes hand each other a word. Like a shuffle it says nothing of memory beside that word: all
// of it is relaxed, so that no race beside it is hidden.
class LaneExchange {
 public:
  using Words = std::array<std::uint32_t, warp_lanes>;

  Words all(std::uint32_t own, int lane) {
    slots_[static_cast<std::size_t>(lane)].store(own, std::memory_order_relaxed);
    meet();
    Words words{};
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = slots_[i].load(std::memory_order_relaxed);
    meet();
    return words;
  }

 private:
  // Whoever adds is behind its own store: on x86 a locked addition is a fence.
  void meet() {
    const unsigned meeting = arrived_.fetch_add(1, std::memory_order_relaxed) / warp_lanes;
    while (arrived_.load(std::memory_order_relaxed) / warp_lanes == meeting) std::this_thread::yield();
  }

  std::array<std::atomic<std::uint32_t>, warp_lanes> slots_{};
  std::atomic<unsigned> arrived_ = 0;
};

template <class T>
struct ThreadLocal {
  T& operator[](int /*thread*/) { return own; }
  T own;
};

class ThreadWarp {
 public:
  template <class T>
  using Local = ThreadLocal<T>;

  ThreadWarp(int thread, LaneExchange& exchange, std::barrier<>& barrier)
      : thread_(thread), exchange_(&exchange), barrier_(&barrier) {}

  [[nodiscard]] int index() const { return thread_ / warp_lanes; }
  template <class Each>
  void each(const Each& f) const {
    f(thread_);
  }
  template <class Each>
  void phase(const Each& f) const {
    f(thread_);
    barrier_->arrive_and_wait();
  }
  [[nodiscard]] std::uint32_t ballot(Local<bool>& flag) const {
    const LaneExchange::Words flags = all(flag.own ? 1 : 0);
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < flags.size(); ++i) bits |= flags[i] << i;
    return bits;
  }
  template <class T>
  void exchange(Local<T>& from, Local<T>& to, int bit) const {
    using Words = std::array<std::uint32_t, sizeof(T) / sizeof(std::uint32_t)>;
    const auto own = std::bit_cast<Words>(from.own);
    Words other{};
    for (std::size_t i = 0; i < own.size(); ++i)
      other[i] = all(own[i])[lane() ^ static_cast<std::size_t>(bit)];
    to.own = std::bit_cast<T>(other);
  }
  template <class Of>
  void transpose(const Of& of, Local<std::uint32_t>& to) const {
    const LaneExchange::Words rows = all(of(thread_));
    const std::size_t row = lane() / 4, column = lane() % 4 * 2;
    to.own = half(rows[4 * column + row / 2], row) | half(rows[4 * (column + 1) + row / 2], row) << 16;
  }
  template <class Sum, class A, class B>
  void multiply_add(const Sum& sum, const A& a, const B& b) const {
    const auto own = a(thread_);
    const std::array left = {all(own.at[0]), all(own.at[1])};
    const LaneExchange::Words right = all(b(thread_));
    auto& to = sum(thread_).at;
    for (std::size_t i = 0; i < 4; ++i)
      for (std::size_t k = 0; k < 8; ++k)
        to[i] += number(half(left.at(i / 2)[lane() / 4 * 4 + k / 2], k)) *
                 number(half(right[(lane() % 4 * 2 + i % 2) * 4 + k / 2], k));
  }

 private:
  [[nodiscard]] std::size_t lane() const { return static_cast<std::size_t>(thread_ % warp_lanes); }
  [[nodiscard]] LaneExchange::Words all(std::uint32_t own) const {
    return exchange_->all(own, thread_ % warp_lanes);
  }
  static std::uint32_t half(std::uint32_t both, std::size_t which) { return both >> which % 2 * 16 & 0xFFFF; }
  static float number(std::uint32_t bits) { return to_float(static_cast<Bfloat16>(bits)); }

  int thread_;
  LaneExchange* exchange_;
  std::barrier<>* barrier_;
};

// What the threads of a block share.
template <int count>
struct SharedBlock {
  explicit SharedBlock(std::size_t floats) : memory(floats), barrier(count) {
    for (int warp = 0; warp < count / warp_lanes; ++warp) of_warp.emplace_back(warp_lanes);
  }

  std::vector<float> memory;
  std::barrier<> barrier;
  std::deque<std::barrier<>> of_warp;
  std::array<LaneExchange, count / warp_lanes> exchanges;
};

// A block as one of its threads sees it.
template <int count>
class ThreadBlock {
 public:
  static constexpr int threads = count;
  template <class T>
  using Local = ThreadLocal<T>;

  ThreadBlock(SharedBlock<count>& shared, int thread)
      : shared_(&shared),
        thread_(thread),
        warp_(thread, shared.exchanges.at(static_cast<std::size_t>(thread / warp_lanes)),
              shared.of_warp.at(static_cast<std::size_t>(thread / warp_lanes))) {}

  [[nodiscard]] float* memory() { return shared_->memory.data(); }
  template <class Each>
  void each(const Each& f) const {
    f(thread_);
  }
  template <class Each>
  void phase(const Each& f) const {
    f(thread_);
    shared_->barrier.arrive_and_wait();
  }
  template <class Each>
  void each_warp(const Each& f) {
    f(warp_);
    shared_->barrier.arrive_and_wait();
  }
  template <class T>
  void exchange(Local<T>& from, Local<T>& to, int bit) const {
    warp_.exchange(from, to, bit);
  }

 private:
  SharedBlock<count>* shared_;
  int thread_;
  ThreadWarp warp_;
};

struct OsThreads {};

/// text(block) by a thread of the operating system for each of the block.
template <int count, class Text>
void run_block(std::size_t floats, OsThreads /*how*/, const Text& text) {
  SharedBlock<count> shared(floats);
  std::vector<std::thread> threads;
  threads.reserve(count);
  for (int thread = 0; thread < count; ++thread)
    threads.emplace_back([&, thread] {
      ThreadBlock<count> block(shared, thread);
      text(block);
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace comigs::kernels
