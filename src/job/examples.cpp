#include "comigs/job/examples.hpp"

#include <span>

#include "comigs/job/local_work.hpp"

namespace comigs::job {

namespace {

using Counts = std::vector<std::int64_t>;

// What each example of a category counts for, added up.
template <class Amount>
Counts by_category(std::span<const data::Example> examples, std::size_t categories, const Amount& amount) {
  Counts counts(categories, 0);
  for (const data::Example& example : examples)
    counts[static_cast<std::size_t>(example.category)] += amount(example);
  return counts;
}

}  // namespace

UserExamples examples_of(const config::Config& config, const data::Manifest& manifest, std::size_t user) {
  const data::UserShards& shards = manifest.users.at(user);
  const std::size_t categories = manifest.categories.size();
  const std::vector<data::Example> all = data::read_examples(shards.train),
                                   test = data::read_examples(shards.test);
  const std::size_t used = data::leading_examples(all, train_tokens(config.users.at(user), shards));
  const auto one = [](const data::Example&) { return std::int64_t{1}; };
  const bool on_validation = config.method.train_on == config::TrainOn::train_and_validation;
  return {.train = by_category(std::span(all).first(used), categories, one),
          .test = by_category(test, categories, one),
          .test_tokens =
              by_category(test, categories, [](const data::Example& example) { return example.response; }),
          .trained_on =
              static_cast<std::int64_t>(used) + (on_validation ? shards.validation.examples->count : 0)};
}

}  // namespace comigs::job
