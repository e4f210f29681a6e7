// Small products of float32 matrices that a cache holds, for one of the instruction sets that Highway
// compiles.
#if defined(COMIGS_KERNELS_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMIGS_KERNELS_PRODUCTS_INL_H_
#undef COMIGS_KERNELS_PRODUCTS_INL_H_
#else
#define COMIGS_KERNELS_PRODUCTS_INL_H_
#endif

#include <hwy/highway.h>

#include <array>
#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace comigs::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The number at (i, k) of a left-hand side, which may be a transposed one.
struct Left {
  const float* numbers;
  std::int64_t row, column;  // strides
};

// c[i, 0..) (+)= sum over k of a[i, k] b[k, 0..) for R rows and V vectors of columns: they stay in registers.
template <std::size_t R, std::size_t V, bool add, class D>
HWY_INLINE void block_of_product(D d, std::int64_t inner, Left a, const float* HWY_RESTRICT b,
                                 std::int64_t b_row, float* HWY_RESTRICT c, std::int64_t c_row) {
  const auto lanes = hn::Lanes(d);
  std::array<hn::Vec<D>, R * V> sum;
  for (std::size_t i = 0; i < R; ++i)
    for (std::size_t v = 0; v < V; ++v) {
      if constexpr (add)
        sum[i * V + v] = hn::LoadU(d, c + static_cast<std::int64_t>(i) * c_row + v * lanes);
      else
        sum[i * V + v] = hn::Zero(d);
    }
  for (std::int64_t k = 0; k < inner; ++k) {
    std::array<hn::Vec<D>, V> right;
    for (std::size_t v = 0; v < V; ++v) right[v] = hn::LoadU(d, b + k * b_row + v * lanes);
    for (std::size_t i = 0; i < R; ++i) {
      const auto left = hn::Set(d, a.numbers[static_cast<std::int64_t>(i) * a.row + k * a.column]);
      for (std::size_t v = 0; v < V; ++v) sum[i * V + v] = hn::MulAdd(left, right[v], sum[i * V + v]);
    }
  }
  for (std::size_t i = 0; i < R; ++i)
    for (std::size_t v = 0; v < V; ++v)
      hn::StoreU(sum[i * V + v], d, c + static_cast<std::int64_t>(i) * c_row + v * lanes);
}

template <std::size_t V, bool add, class D>
HWY_INLINE void columns_of_product(D d, std::int64_t rows, std::int64_t inner, Left a, const float* b,
                                   std::int64_t b_row, float* c, std::int64_t c_row) {
  constexpr std::int64_t together = 6;  // with two vectors of columns, as many as 16 registers hold
  const auto from = [&](std::int64_t i) { return Left{a.numbers + i * a.row, a.row, a.column}; };
  std::int64_t i = 0;
  for (; i + together <= rows; i += together)
    block_of_product<together, V, add>(d, inner, from(i), b, b_row, c + i * c_row, c_row);
  for (; i + 2 <= rows; i += 2)
    block_of_product<2, V, add>(d, inner, from(i), b, b_row, c + i * c_row, c_row);
  for (; i < rows; ++i) block_of_product<1, V, add>(d, inner, from(i), b, b_row, c + i * c_row, c_row);
}

// c [rows, columns] = a [rows, inner] b [inner, columns], or with `add` += that; `columns` are whole vectors,
// of which there is memory in rows of b and c.
template <bool add>
HWY_NOINLINE void product(std::int64_t rows, std::int64_t columns, std::int64_t inner, Left a, const float* b,
                          std::int64_t b_row, float* c, std::int64_t c_row) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t j = 0;
  for (; j + 2 * lanes <= columns; j += 2 * lanes)
    columns_of_product<2, add>(d, rows, inner, a, b + j, b_row, c + j, c_row);
  for (; j < columns; j += lanes) columns_of_product<1, add>(d, rows, inner, a, b + j, b_row, c + j, c_row);
}

}  // namespace HWY_NAMESPACE
}  // namespace comigs::kernels
HWY_AFTER_NAMESPACE();

#endif
