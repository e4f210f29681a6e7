#include "comigs/model/pruning.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "comigs/base/error.hpp"

namespace comigs::model {

namespace {

constexpr std::int64_t block_inputs = 128;  // of SparseGPT: B in Algorithm 1
constexpr double dampening = 0.01;

// Marks the `count` smallest scores, of equal ones the first. `scratch`: memory that calls share.
void mark_smallest(std::span<const float> scores, std::int64_t count, std::span<bool> goes,
                   std::vector<float>& scratch) {
  std::ranges::fill(goes, false);
  if (count == 0) return;
  scratch.assign(scores.begin(), scores.end());
  const auto last = scratch.begin() + (count - 1);
  std::nth_element(scratch.begin(), last, scratch.end());
  const float threshold = *last;
  std::int64_t ties = count - std::ranges::count_if(scores, [&](float s) { return s < threshold; });
  for (std::size_t i = 0; i < scores.size(); ++i)
    goes[i] = scores[i] < threshold || (scores[i] == threshold && ties-- > 0);
}

// The same in each run of `of` of the row.
void mark_runs(std::span<const float> scores, const Sparsity& sparsity, std::span<bool> goes,
               std::vector<float>& scratch) {
  const auto of = static_cast<std::size_t>(sparsity.of);
  for (std::size_t begin = 0; begin < scores.size(); begin += of)
    mark_smallest(scores.subspan(begin, of), sparsity.zeros, goes.subspan(begin, of), scratch);
}

template <class Number>
std::span<Number> numbers(const at::Tensor& tensor) {
  return {tensor.data_ptr<Number>(), static_cast<std::size_t>(tensor.numel())};
}

template <class Work>
void for_each_row(std::int64_t rows, const Work& work) {
  at::parallel_for(0, rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) work(row);
  });
}

// scores [out, in] -> which go, chosen in each row.
at::Tensor smallest_of_rows(const at::Tensor& scores, const Sparsity& sparsity) {
  const at::Tensor goes = at::empty(scores.sizes(), at::kBool);
  const std::int64_t in = scores.size(1), count = zeros_of(sparsity.share, in);
  const std::span<const float> all = numbers<float>(scores);
  const std::span<bool> marks = numbers<bool>(goes);
  for_each_row(scores.size(0), [&](std::int64_t row) {
    const auto begin = static_cast<std::size_t>(row * in), length = static_cast<std::size_t>(in);
    std::vector<float> scratch;
    if (sparsity.of > 0) {
      mark_runs(all.subspan(begin, length), sparsity, marks.subspan(begin, length), scratch);
    } else {
      mark_smallest(all.subspan(begin, length), count, marks.subspan(begin, length), scratch);
    }
  });
  return goes;
}

// scores [rows, columns] -> which go, chosen among all of them.
at::Tensor smallest_of_all(const at::Tensor& scores, double share) {
  const at::Tensor goes = at::empty(scores.sizes(), at::kBool);
  std::vector<float> scratch;
  mark_smallest(numbers<float>(scores), zeros_of(share, scores.numel()), numbers<bool>(goes), scratch);
  return goes;
}

// U [in, in] float32, upper: U^T U = H^-1. Its row i, from i on, is what weight i weighs against those to its
// right once all to its left are settled.
at::Tensor inverse_factor(const InputSums& inputs) {
  at::Tensor hessian = inputs.gram * (2.0 / static_cast<double>(inputs.count));
  at::Tensor diagonal = hessian.diagonal();
  diagonal.masked_fill_(diagonal == 0.0, 1.0);
  diagonal.add_(dampening * diagonal.mean());
  const at::Tensor inverse = at::cholesky_inverse(at::linalg_cholesky(hessian));
  return at::linalg_cholesky(inverse, true).to(at::kFloat).contiguous();
}

// A block of columns on its way: weights and marks of the block lie in rows, those of W `stride` apart.
struct BlockOfInputs {
  float* weights;
  std::int64_t stride, columns;
  const float* factor;  // U from the block's place on the diagonal on
  std::int64_t factor_stride;
  Sparsity sparsity;  // `of` 0: `goes` is marked already
  bool* goes;         // [out, columns]
  float* errors;      // [out, columns]
};

// From left to right: whoever goes leaves e = w_i / U_ii behind, and w_j -= e U_ij.
void settle_row(const BlockOfInputs& block, std::int64_t row, std::vector<float>& scores,
                std::vector<float>& scratch) {
  float *const w = block.weights + row * block.stride, *const errors = block.errors + row * block.columns;
  const std::span<bool> goes(block.goes + row * block.columns, static_cast<std::size_t>(block.columns));
  const auto factor = [&](std::int64_t i) { return block.factor + i * block.factor_stride; };
  const std::int64_t of = block.sparsity.of;
  for (std::int64_t i = 0; i < block.columns; ++i) {
    if (of > 0 && i % of == 0) {
      scores.resize(static_cast<std::size_t>(of));
      for (std::int64_t j = 0; j < of; ++j)
        scores[static_cast<std::size_t>(j)] = std::abs(w[i + j]) / factor(i + j)[i + j];
      mark_smallest(scores, block.sparsity.zeros,
                    goes.subspan(static_cast<std::size_t>(i), static_cast<std::size_t>(of)), scratch);
    }
    errors[i] = goes[static_cast<std::size_t>(i)] ? w[i] / factor(i)[i] : 0.0F;
    if (!goes[static_cast<std::size_t>(i)]) continue;
    const float* const u = factor(i);
    w[i] = 0.0F;
    for (std::int64_t j = i + 1; j < block.columns; ++j) w[j] -= errors[i] * u[j];
  }
}

// Whole runs of `of`, so that none lies in two blocks.
std::int64_t inputs_of_block(const Sparsity& sparsity) {
  return sparsity.of == 0 ? block_inputs
                          : std::max(block_inputs / sparsity.of, std::int64_t{1}) * sparsity.of;
}

// W [out, in] float32, in place. What a block leaves behind reaches the rest in one product.
void prune_by_sparsegpt(const at::Tensor& W, const Sparsity& sparsity, const InputSums& inputs) {
  const std::int64_t out = W.size(0), in = W.size(1);
  W.masked_fill_(inputs.gram.diagonal() == 0.0, 0.0);
  const at::Tensor U = inverse_factor(inputs), scales = U.diagonal();
  for (std::int64_t begin = 0, columns = 0; begin < in; begin += columns) {
    columns = std::min(inputs_of_block(sparsity), in - begin);
    const at::Tensor part = W.narrow(1, begin, columns), errors = at::empty({out, columns}, W.options());
    const at::Tensor goes =
        sparsity.of > 0
            ? at::empty({out, columns}, at::kBool)
            : smallest_of_all((part.abs() / scales.narrow(0, begin, columns)).contiguous(), sparsity.share);
    const BlockOfInputs block{.weights = part.data_ptr<float>(),
                              .stride = in,
                              .columns = columns,
                              .factor = U.data_ptr<float>() + begin * in + begin,
                              .factor_stride = in,
                              .sparsity = sparsity,
                              .goes = goes.data_ptr<bool>(),
                              .errors = errors.data_ptr<float>()};
    for_each_row(out, [&](std::int64_t row) {
      std::vector<float> scores, scratch;
      settle_row(block, row, scores, scratch);
    });
    const std::int64_t end = begin + columns;
    if (end < in)
      W.narrow(1, end, in - end)
          .addmm_(errors, U.narrow(0, begin, columns).narrow(1, end, in - end), 1.0, -1.0);
  }
}

void check_sums(const at::Tensor& sums) {
  if (!sums.isfinite().all().item<bool>())
    throw NumericError("the inputs of a linear map are not finite on the calibration text");
}

}  // namespace

std::int64_t zeros_of(double share, std::int64_t count) {
  // A share such as 0.29 lies a little below what is meant: 0.29 of 100 is 29.
  constexpr double rounding = 1e-6;
  return static_cast<std::int64_t>(std::floor(share * static_cast<double>(count) + rounding));
}

at::Tensor pruned(const at::Tensor& matrix, PruningMethod method, const Sparsity& sparsity,
                  const InputSums& inputs) {
  const at::Tensor W = matrix.to(at::kFloat, false, true).contiguous();
  if (method == PruningMethod::sparsegpt) {
    check_sums(inputs.gram);
    prune_by_sparsegpt(W, sparsity, inputs);
    return W.to(matrix.scalar_type());
  }
  at::Tensor scores = W.abs();
  if (method == PruningMethod::wanda) {
    check_sums(inputs.squares);
    scores.mul_(inputs.squares.sqrt().to(at::kFloat));
  }
  const bool is_of_matrix = method == PruningMethod::magnitude && sparsity.of == 0;
  return matrix.masked_fill(
      is_of_matrix ? smallest_of_all(scores, sparsity.share) : smallest_of_rows(scores, sparsity), 0.0);
}

}  // namespace comigs::model
