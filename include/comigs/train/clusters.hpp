// k-means of points that several holders have, each its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "comigs/base/random.hpp"

namespace comigs::train {

/// What the holders of one process bring.
struct HeldPoints {
  std::vector<at::Tensor> points = {};  ///< [holder here] [n, C] float32 in host memory, contiguous
  std::size_t first = 0;                ///< among all holders; those here follow one another
  /// All holders' blocks in their order, made of those of the holders here; all blocks have the same length.
  /// Collective where holders are elsewhere too. As it is: all holders are here.
  std::function<std::vector<double>(std::span<const double> own)> all_gather =
      [](std::span<const double> own) { return std::vector<double>(own.begin(), own.end()); };
};

/// Collective as `all_gather` is. [holder here] [n] the cluster that each point belongs to: Lloyd's algorithm
/// from centres that are points, each drawn with a chance that goes with its squared distance from the
/// nearest before it (k-means++: Arthur & Vassilvitskii 2007), until no label changes or 25 times. Of centres
/// at the same distance the first counts; a cluster that loses all its points keeps its centre. With fewer
/// different points than `clusters` so many clusters have points, the others none.
///
/// Sums are made by holder and added in the order of holders: the result is the same wherever they are.
[[nodiscard]] std::vector<std::vector<std::int64_t>> all_cluster(const HeldPoints& held,
                                                                 std::int64_t clusters, const StreamKey& key);

}  // namespace comigs::train
