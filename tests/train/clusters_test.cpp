// k-means: planted clusters, Lloyd's algorithm written plainly, and that it does not matter who holds what.
#include "comigs/train/clusters.hpp"

#include <boost/test/unit_test.hpp>

#include <set>

#include "support/tensors.hpp"

namespace comigs::train {

namespace {

using Labels = std::vector<std::int64_t>;

const auto per_element = boost::test_tools::per_element();
constexpr std::int64_t C = 5;
const StreamKey some_key{.seed = 3, .user = 1, .stream = Stream::gate_clusters};

// Point i is one of cluster i % k, whose centre is far from the others'.
at::Tensor planted(std::int64_t n, std::int64_t k) {
  const at::Tensor centres = 100 * test::normal({k, C}, 1);
  return centres.index_select(0, at::arange(n) % k) + test::normal({n, C}, 2);
}

// Of all points, held in parts of these sizes by holders of one process.
Labels labels(const at::Tensor& points, std::int64_t k, const std::vector<std::int64_t>& parts,
              const StreamKey& key = some_key) {
  HeldPoints held;
  for (const at::Tensor& part : points.split_with_sizes(parts)) held.points.push_back(part.contiguous());
  Labels all;
  for (const Labels& part : all_cluster(held, k, key)) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Labels labels(const at::Tensor& points, std::int64_t k, const StreamKey& key = some_key) {
  return labels(points, k, {points.size(0)}, key);
}

Labels as_labels(const at::Tensor& numbers) {
  return {numbers.const_data_ptr<std::int64_t>(), numbers.const_data_ptr<std::int64_t>() + numbers.numel()};
}

// The nearest of the means of the points of each label, once more.
Labels nearest_means(const at::Tensor& points, const Labels& of, std::int64_t k) {
  const at::Tensor wide = points.to(at::kDouble), member = at::one_hot(at::tensor(of), k).to(at::kDouble),
                   means = member.t().mm(wide) / member.sum(0).unsqueeze(1);
  return as_labels((wide.unsqueeze(1) - means.unsqueeze(0)).square().sum(2).argmin(1));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(clusters)

BOOST_AUTO_TEST_CASE(planted_clusters_are_found) {
  for (const std::int64_t k : {1, 2, 4, 7})
    for (const std::uint64_t seed : {0, 1, 2}) {
      const Labels found = labels(planted(60, k), k, {.seed = seed, .stream = Stream::gate_clusters});
      BOOST_TEST(std::set(found.begin(), found.end()).size() == static_cast<std::size_t>(k));
      for (std::size_t i = static_cast<std::size_t>(k); i < found.size(); ++i)
        BOOST_TEST(found[i] == found[i - static_cast<std::size_t>(k)]);
    }
}

BOOST_AUTO_TEST_CASE(every_point_is_with_the_nearest_mean) {
  for (const std::uint32_t draw : {3u, 4u, 5u}) {  // without any clusters
    const at::Tensor points = test::normal({50, C}, draw);
    const Labels found = labels(points, 4);
    BOOST_TEST(found == nearest_means(points, found, 4), per_element);
  }
}

BOOST_AUTO_TEST_CASE(who_holds_a_point_does_not_matter) {
  for (const at::Tensor& points : {planted(40, 3), test::normal({40, C}, 6)}) {
    const Labels together = labels(points, 3);
    BOOST_TEST(labels(points, 3, {10, 10, 10, 10}) == together, per_element);
    BOOST_TEST(labels(points, 3, {1, 38, 1}) == together, per_element);
  }
}

BOOST_AUTO_TEST_CASE(the_key_alone_draws) {
  const at::Tensor points = test::normal({50, C}, 7);
  BOOST_TEST(labels(points, 4) == labels(points, 4), per_element);
  StreamKey other = some_key;
  other.user = 2;
  BOOST_TEST((labels(points, 4) != labels(points, 4, other)));
}

BOOST_AUTO_TEST_CASE(of_equal_distances_the_first_counts) {
  const at::Tensor points = at::cat({at::full({100}, -1.0f), at::zeros({1}), at::ones({100})}).unsqueeze(1);
  for (const std::uint64_t seed : {0, 1, 2, 3}) {
    const Labels found = labels(points, 2, {.seed = seed, .stream = Stream::gate_clusters});
    BOOST_TEST(found.front() != found.back());
    BOOST_TEST(found[100] == 0);  // in the middle
  }
}

BOOST_AUTO_TEST_CASE(more_clusters_than_different_points_have_none) {
  const at::Tensor two = test::normal({2, C}, 8), points = two.index_select(0, at::tensor({0, 1, 0, 0, 1}));
  for (const std::vector<std::int64_t>& parts : {std::vector<std::int64_t>{5}, {1, 4}, {3, 2}}) {
    const Labels found = labels(points, 4, parts);
    BOOST_TEST(found[0] + found[1] == 1);
    BOOST_TEST(found == (Labels{found[0], found[1], found[0], found[0], found[1]}), per_element);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
