// Vectorised for every instruction set that the machine may have; the best one is picked at the first call.
#include "comigs/kernels/attention.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention.cpp"
#include <hwy/aligned_allocator.h>
#include <hwy/foreach_target.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <new>

#include "products-inl.h"
#include "vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

// Of as many queries at a time the weights of all keys are kept.
constexpr std::int64_t block_tokens = 32;

std::int64_t whole_vectors(std::int64_t count) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  return (count + lanes - 1) / lanes * lanes;
}

// A matrix of float32 with rows of whole vectors, all zero at first.
class Matrix {
 public:
  Matrix(std::int64_t rows, std::int64_t columns)
      : row_(whole_vectors(columns)),
        numbers_(hwy::AllocateAligned<float>(static_cast<std::size_t>(rows * row_))) {
    if (numbers_ == nullptr) throw std::bad_alloc();
    std::fill_n(numbers_.get(), rows * row_, 0.0f);
  }
  [[nodiscard]] std::int64_t row() const { return row_; }
  [[nodiscard]] float* at(std::int64_t i) const { return numbers_.get() + i * row_; }
  [[nodiscard]] Left left() const { return {numbers_.get(), row_, 1}; }
  [[nodiscard]] Left transposed() const { return {numbers_.get(), 1, row_}; }

 private:
  std::int64_t row_;
  hwy::AlignedFreeUniquePtr<float[]> numbers_;
};

// c = a b, or with `add` += that, of their first `rows` and `columns`, over `inner` rows of b.
template <bool add>
void multiply(std::int64_t rows, std::int64_t columns, std::int64_t inner, Left a, const Matrix& b,
              const Matrix& c) {
  product<add>(rows, columns, inner, a, b.at(0), b.row(), c.at(0), c.row());
}

template <class Number>
void widen(const Number* from, std::int64_t count, float factor, float* to) {
  in_vectors(count, [&](auto d, Columns columns) {
    const auto by = hn::Set(d, factor);
    for (std::int64_t c = columns.begin; c < columns.end; c += static_cast<std::int64_t>(hn::Lanes(d)))
      hn::StoreU(hn::Mul(load(d, from + c), by), d, to + c);
  });
}

template <class Number>
void narrow(const float* from, std::int64_t count, float factor, Number* to) {
  in_vectors(count, [&](auto d, Columns columns) {
    const auto by = hn::Set(d, factor);
    for (std::int64_t c = columns.begin; c < columns.end; c += static_cast<std::int64_t>(hn::Lanes(d)))
      store(d, hn::Mul(hn::LoadU(d, from + c), by), to + c);
  });
}

// The rows of one head of one sequence.
template <class Number>
struct Rows {
  Rows(const HeadRows<Number>& of, std::int64_t sequence, std::int64_t head)
      : first(of.numbers + sequence * of.sequence + head * of.head), stride(of.token) {}
  [[nodiscard]] Number* at(std::int64_t token) const { return first + token * stride; }

  Number* first;
  std::int64_t stride;
};

template <class Number>
void widen_rows(const Rows<Number>& from, std::int64_t begin, std::int64_t count, std::int64_t size,
                float factor, const Matrix& to) {
  for (std::int64_t i = 0; i < count; ++i) widen(from.at(begin + i), size, factor, to.at(i));
}

void transpose(const Matrix& from, std::int64_t rows, std::int64_t columns, const Matrix& to) {
  constexpr std::int64_t together = 16;  // rows of `from`, a cache line of a row of `to`
  for (std::int64_t begin = 0; begin < rows; begin += together)
    for (std::int64_t c = 0; c < columns; ++c)
      for (std::int64_t r = begin; r < std::min(begin + together, rows); ++r) to.at(c)[r] = from.at(r)[c];
}

// Queries [begin, begin + count) of a head, and what they see of the keys.
struct Block {
  Block(const AttentionShape& shape, std::int64_t first)
      : begin(first),
        count(std::min(block_tokens, shape.tokens - first)),
        seen_by_first(first + 1 + shape.keys - shape.tokens),
        seen(seen_by_first + count - 1) {}
  [[nodiscard]] std::int64_t seen_by(std::int64_t i) const { return seen_by_first + i; }

  std::int64_t begin, count, seen_by_first, seen;
};

// visit(d, c) for the vectors of a matrix's row that have columns of [0, count).
template <class Visit>
void in_whole_vectors(std::int64_t count, const Visit& visit) {
  const hn::ScalableTag<float> d;
  for (std::int64_t c = 0; c < count; c += static_cast<std::int64_t>(hn::Lanes(d))) visit(d, c);
}

// In place: logits of the keys that a query sees -> exp(logit - shift), and 0 for the others up to `end`.
void exponentials(float* row, std::int64_t seen, std::int64_t end, float shift) {
  in_whole_vectors(seen, [&](auto d, std::int64_t c) {
    hn::Store(exponential(d, hn::Sub(hn::Load(d, row + c), hn::Set(d, shift))), d, row + c);
  });
  std::fill(row + seen, row + end, 0.0f);
}

// Of a row with zeros behind what is seen.
float sum_of_row(const float* row, std::int64_t seen) {
  const hn::ScalableTag<float> d;
  auto sum = hn::Zero(d);
  in_whole_vectors(seen, [&](auto, std::int64_t c) { sum = hn::Add(sum, hn::Load(d, row + c)); });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// What is not seen up to `end` is overwritten.
float largest_of_row(float* row, std::int64_t seen, std::int64_t end) {
  constexpr float lowest = std::numeric_limits<float>::lowest();
  std::fill(row + seen, row + end, lowest);
  const hn::ScalableTag<float> d;
  auto most = hn::Set(d, lowest);
  in_whole_vectors(seen, [&](auto, std::int64_t c) { most = hn::Max(most, hn::Load(d, row + c)); });
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

template <class Number>
class ForwardPart {
 public:
  explicit ForwardPart(const AttentionForward<Number>& pass)
      : pass_(pass),
        values_(pass.shape.keys, pass.shape.head_size),
        keys_across_(pass.shape.head_size, pass.shape.keys),
        queries_(block_tokens, pass.shape.head_size),
        weights_(block_tokens, pass.shape.keys),
        mixed_(block_tokens, pass.shape.head_size) {}

  void run(std::int64_t part) {
    const AttentionShape& shape = pass_.shape;
    const std::int64_t sequence = part / shape.heads, head = part % shape.heads;
    if (const std::int64_t key_value_part = part / shape.group(); key_value_part != read_) {
      read(sequence, head / shape.group());
      read_ = key_value_part;
    }
    for (std::int64_t t = 0; t < shape.tokens; t += block_tokens) mix(Block(shape, t), sequence, head);
  }

 private:
  void read(std::int64_t sequence, std::int64_t head) {
    const AttentionShape& shape = pass_.shape;
    widen_rows(Rows(pass_.keys, sequence, head), 0, shape.keys, shape.head_size, 1.0f, values_);
    transpose(values_, shape.keys, shape.head_size, keys_across_);
    widen_rows(Rows(pass_.values, sequence, head), 0, shape.keys, shape.head_size, 1.0f, values_);
  }

  void mix(const Block& block, std::int64_t sequence, std::int64_t head) {
    const AttentionShape& shape = pass_.shape;
    const Rows mixed(pass_.mixed, sequence, head);
    const std::int64_t wide = whole_vectors(block.seen);
    widen_rows(Rows(pass_.queries, sequence, head), block.begin, block.count, shape.head_size, shape.scale,
               queries_);
    multiply<false>(block.count, wide, shape.head_size, queries_.left(), keys_across_, weights_);
    std::array<float, block_tokens> inverse{};
    for (std::int64_t i = 0; i < block.count; ++i) {
      float* row = weights_.at(i);
      const float shift = largest_of_row(row, block.seen_by(i), wide);
      exponentials(row, block.seen_by(i), wide, shift);
      const float sum = sum_of_row(row, block.seen_by(i));
      inverse[static_cast<std::size_t>(i)] = 1.0f / sum;
      if (pass_.log_sum != nullptr)
        pass_.log_sum[(sequence * shape.heads + head) * shape.tokens + block.begin + i] =
            shift + std::log(sum);
    }
    multiply<false>(block.count, mixed_.row(), block.seen, weights_.left(), values_, mixed_);
    for (std::int64_t i = 0; i < block.count; ++i)
      narrow(mixed_.at(i), shape.head_size, inverse[static_cast<std::size_t>(i)], mixed.at(block.begin + i));
  }

  const AttentionForward<Number>& pass_;
  std::int64_t read_ = -1;  // the head of keys and values that is in the matrices
  Matrix values_, keys_across_, queries_, weights_, mixed_;
};

template <class Number>
class BackwardPart {
 public:
  explicit BackwardPart(const AttentionBackward<Number>& pass)
      : pass_(pass),
        keys_(pass.shape.keys, pass.shape.head_size),
        keys_across_(pass.shape.head_size, pass.shape.keys),
        values_across_(pass.shape.head_size, pass.shape.keys),
        d_keys_(pass.shape.keys, pass.shape.head_size),
        d_values_(pass.shape.keys, pass.shape.head_size),
        queries_(block_tokens, pass.shape.head_size),
        d_queries_(block_tokens, pass.shape.head_size),
        d_mixed_(block_tokens, pass.shape.head_size),
        weights_(block_tokens, pass.shape.keys),
        d_weights_(block_tokens, pass.shape.keys) {}

  void run(std::int64_t part) {
    const AttentionShape& shape = pass_.shape;
    const std::int64_t sequence = part / shape.key_value_heads, head = part % shape.key_value_heads,
                       size = shape.head_size;
    widen_rows(Rows(pass_.values, sequence, head), 0, shape.keys, size, 1.0f, keys_);
    transpose(keys_, shape.keys, size, values_across_);
    widen_rows(Rows(pass_.keys, sequence, head), 0, shape.keys, size, 1.0f, keys_);
    transpose(keys_, shape.keys, size, keys_across_);
    std::fill_n(d_keys_.at(0), shape.keys * d_keys_.row(), 0.0f);
    std::fill_n(d_values_.at(0), shape.keys * d_values_.row(), 0.0f);
    for (std::int64_t h = head * shape.group(); h < (head + 1) * shape.group(); ++h)
      for (std::int64_t t = 0; t < shape.tokens; t += block_tokens) add(Block(shape, t), sequence, h);
    const Rows d_keys(pass_.d_keys, sequence, head), d_values(pass_.d_values, sequence, head);
    for (std::int64_t s = 0; s < shape.keys; ++s) {
      narrow(d_keys_.at(s), size, 1.0f, d_keys.at(s));
      narrow(d_values_.at(s), size, 1.0f, d_values.at(s));
    }
  }

 private:
  // What a block of queries adds: with W the weights and d_W = d_mixed V^T, the logits' gradient is
  // W (d_W - the mean of d_W by W).
  void add(const Block& block, std::int64_t sequence, std::int64_t head) {
    const AttentionShape& shape = pass_.shape;
    const std::int64_t wide = whole_vectors(block.seen), size = shape.head_size;
    const auto widen_block = [&](const HeadRows<const Number>& from, float factor, const Matrix& to) {
      widen_rows(Rows(from, sequence, head), block.begin, block.count, size, factor, to);
    };
    widen_block(pass_.queries, shape.scale, queries_);
    widen_block(pass_.d_mixed, 1.0f, d_mixed_);
    multiply<false>(block.count, wide, size, queries_.left(), keys_across_, weights_);
    const float* log_sum = pass_.log_sum + (sequence * shape.heads + head) * shape.tokens + block.begin;
    for (std::int64_t i = 0; i < block.count; ++i)
      exponentials(weights_.at(i), block.seen_by(i), wide, log_sum[i]);
    multiply<true>(block.seen, d_values_.row(), block.count, weights_.transposed(), d_mixed_, d_values_);
    multiply<false>(block.count, wide, size, d_mixed_.left(), values_across_, d_weights_);
    for (std::int64_t i = 0; i < block.count; ++i) to_logits(i, block.seen_by(i), wide);
    multiply<true>(block.seen, d_keys_.row(), block.count, d_weights_.transposed(), queries_, d_keys_);
    multiply<false>(block.count, d_queries_.row(), block.seen, d_weights_.left(), keys_, d_queries_);
    const Rows d_queries(pass_.d_queries, sequence, head);
    for (std::int64_t i = 0; i < block.count; ++i)
      narrow(d_queries_.at(i), size, shape.scale, d_queries.at(block.begin + i));
  }

  void to_logits(std::int64_t i, std::int64_t seen, std::int64_t end) {
    const float* weights = weights_.at(i);
    float* d_weights = d_weights_.at(i);
    std::fill(d_weights + seen, d_weights + end, 0.0f);
    const hn::ScalableTag<float> d;
    auto sum = hn::Zero(d);
    in_whole_vectors(seen, [&](auto, std::int64_t c) {
      sum = hn::MulAdd(hn::Load(d, weights + c), hn::Load(d, d_weights + c), sum);
    });
    const auto mean = hn::SumOfLanes(d, sum);
    in_whole_vectors(seen, [&](auto, std::int64_t c) {
      hn::Store(hn::Mul(hn::Load(d, weights + c), hn::Sub(hn::Load(d, d_weights + c), mean)), d,
                d_weights + c);
    });
  }

  const AttentionBackward<Number>& pass_;
  Matrix keys_, keys_across_, values_across_, d_keys_, d_values_;
  Matrix queries_, d_queries_, d_mixed_, weights_, d_weights_;
};

template <template <class> class Part, class Pass>
void run_parts(const Pass& pass, std::int64_t begin, std::int64_t end) {
  Part work(pass);
  for (std::int64_t part = begin; part < end; ++part) work.run(part);
}

void ForwardFloat(const AttentionForward<float>& pass, std::int64_t begin, std::int64_t end) {
  run_parts<ForwardPart>(pass, begin, end);
}
void ForwardBfloat16(const AttentionForward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  run_parts<ForwardPart>(pass, begin, end);
}
void BackwardFloat(const AttentionBackward<float>& pass, std::int64_t begin, std::int64_t end) {
  run_parts<BackwardPart>(pass, begin, end);
}
void BackwardBfloat16(const AttentionBackward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  run_parts<BackwardPart>(pass, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace comigs::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace comigs::kernels {

HWY_EXPORT(ForwardFloat);
HWY_EXPORT(ForwardBfloat16);
HWY_EXPORT(BackwardFloat);
HWY_EXPORT(BackwardBfloat16);

template <>
void attention_forward(const AttentionForward<float>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardFloat)(pass, begin, end);
}
template <>
void attention_forward(const AttentionForward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(ForwardBfloat16)(pass, begin, end);
}
template <>
void attention_backward(const AttentionBackward<float>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardFloat)(pass, begin, end);
}
template <>
void attention_backward(const AttentionBackward<Bfloat16>& pass, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(BackwardBfloat16)(pass, begin, end);
}

}  // namespace comigs::kernels
#endif
