#include "comigs/train/clusters.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace comigs::train {

namespace {

constexpr int most_moves = 25;

// What is added up to move the centres, [cluster] the sum of its points and their number, and last how many
// labels have changed since they were moved.
struct Sums {
  std::size_t width;

  [[nodiscard]] std::size_t size(std::size_t clusters) const { return clusters * (width + 1) + 1; }
  [[nodiscard]] std::size_t of(std::size_t cluster) const { return cluster * (width + 1); }
};

// The points of one holder, and what is known of them.
class Points {
 public:
  explicit Points(const at::Tensor& points)
      : numbers_(points.const_data_ptr<float>(), static_cast<std::size_t>(points.numel())),
        width_(static_cast<std::size_t>(points.size(1))),
        distance_(static_cast<std::size_t>(points.size(0)), 1.0),
        label_(distance_.size(), 0),
        moved_as_(distance_.size(), -1) {}

  [[nodiscard]] std::span<const float> point(std::size_t i) const {
    return numbers_.subspan(i * width_, width_);
  }
  /// Squared, from the nearest centre; 1 before there is any.
  [[nodiscard]] std::span<const double> distances() const { return distance_; }
  [[nodiscard]] const std::vector<std::int64_t>& labels() const { return label_; }

  /// With all centres, in their order.
  void compare(std::span<const double> centre, std::size_t number) {
    for (std::size_t i = 0; i < label_.size(); ++i) {
      double sum = 0.0;
      for (std::size_t c = 0; c < width_; ++c) {
        const double difference = point(i)[c] - centre[c];
        sum += difference * difference;
      }
      if (number > 0 && sum >= distance_[i]) continue;
      distance_[i] = sum;
      label_[i] = static_cast<std::int64_t>(number);
    }
  }

  void add_to(std::span<double> block, const Sums& sums) {
    for (std::size_t i = 0; i < label_.size(); ++i) {
      const std::span<double> own = block.subspan(sums.of(static_cast<std::size_t>(label_[i])), width_ + 1);
      for (std::size_t c = 0; c < width_; ++c) own[c] += point(i)[c];
      own[width_] += 1.0;
      if (label_[i] != moved_as_[i]) block.back() += 1.0;
    }
    moved_as_ = label_;
  }

 private:
  std::span<const float> numbers_;  // [n, C]
  std::size_t width_;
  std::vector<double> distance_;
  std::vector<std::int64_t> label_, moved_as_;  // the latter: when centres were moved last
};

// Where `left`, from 0 to below the sum of the weights, falls with these laid end to end, and what is left of
// it there. Never one of weight 0, whatever roundings do.
std::size_t place(std::span<const double> weights, double& left) {
  std::size_t found = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0.0) continue;
    found = i;
    if (left < weights[i]) break;
    left -= weights[i];
  }
  return found;
}

class Clustering {
 public:
  Clustering(const HeldPoints& held, const StreamKey& key)
      : held_(held), stream_(key), width_(static_cast<std::size_t>(held.points.front().size(1))) {
    for (const at::Tensor& points : held.points) own_.emplace_back(points);
  }

  [[nodiscard]] std::vector<std::vector<std::int64_t>> all_labels(std::size_t clusters) {
    while (count() < clusters && all_draw_centre()) compare(count() - 1);
    for (int moves = 0; moves < most_moves && all_move_centres(); ++moves)
      for (std::size_t number = 0; number < count(); ++number) compare(number);
    std::vector<std::vector<std::int64_t>> labels;
    for (const Points& points : own_) labels.push_back(points.labels());
    return labels;
  }

 private:
  [[nodiscard]] std::size_t count() const { return centres_.size() / width_; }
  [[nodiscard]] std::span<double> centre(std::size_t number) {
    return std::span(centres_).subspan(number * width_, width_);
  }
  void compare(std::size_t number) {
    for (Points& points : own_) points.compare(centre(number), number);
  }

  // False: every point is a centre's.
  bool all_draw_centre() {
    std::vector<double> own;
    for (const Points& points : own_)
      own.push_back(std::accumulate(points.distances().begin(), points.distances().end(), 0.0));
    const std::vector<double> sums = held_.all_gather(own);
    const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
    if (sum == 0.0) return false;
    double left = static_cast<double>(stream_.uniform()) * sum;
    const std::size_t holder = place(sums, left);
    own.assign(own_.size() * width_, 0.0);  // the point, from who has it
    if (holder >= held_.first && holder < held_.first + own_.size()) {
      const Points& points = own_[holder - held_.first];
      std::ranges::copy(points.point(place(points.distances(), left)),
                        std::span(own).subspan((holder - held_.first) * width_).begin());
    }
    const std::vector<double> all = held_.all_gather(own);
    const std::span drawn = std::span(all).subspan(holder * width_, width_);
    centres_.insert(centres_.end(), drawn.begin(), drawn.end());
    return true;
  }

  // False: no label has changed since they were moved last.
  bool all_move_centres() {
    const Sums sums{.width = width_};
    const std::size_t block = sums.size(count());
    std::vector<double> own(own_.size() * block, 0.0), sum(block, 0.0);
    for (std::size_t holder = 0; holder < own_.size(); ++holder)
      own_[holder].add_to(std::span(own).subspan(holder * block, block), sums);
    const std::vector<double> all = held_.all_gather(own);
    for (std::size_t i = 0; i < all.size(); ++i) sum[i % block] += all[i];
    if (sum.back() == 0.0) return false;
    for (std::size_t number = 0; number < count(); ++number) {
      const std::span<const double> of = std::span(sum).subspan(sums.of(number), width_ + 1);
      if (of[width_] == 0.0) continue;
      for (std::size_t c = 0; c < width_; ++c) centre(number)[c] = of[c] / of[width_];
    }
    return true;
  }

  const HeldPoints& held_;
  RandomStream stream_;
  std::size_t width_;
  std::vector<Points> own_;
  std::vector<double> centres_;  // [cluster, C]
};

}  // namespace

std::vector<std::vector<std::int64_t>> all_cluster(const HeldPoints& held, std::int64_t clusters,
                                                   const StreamKey& key) {
  return Clustering(held, key).all_labels(static_cast<std::size_t>(clusters));
}

}  // namespace comigs::train
