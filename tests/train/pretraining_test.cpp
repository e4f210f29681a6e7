// Making a base, on several numbers of ranks: the same steps to rounding, the same folder back.
#include "comigs/train/pretraining.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/comm/reduction.hpp"
#include "comigs/train/evaluation.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::train {

namespace {

namespace tt = boost::test_tools;

constexpr std::int64_t vocabulary = 23;

struct Corpus : TemporaryFolder {
  comm::Communicator world = comm::Communicator::world();
  comm::Reduction reduction{comm::Memory::host, comm::Sums::any_order};
  config::Pretrain plan;
  data::TokenShard text = test::write_shard(folder / "text.bin", pattern(400), vocabulary);
  data::TokenShard held_out = test::write_shard(folder / "held_out.bin", pattern(61), vocabulary);

  Corpus() {
    plan.layers = 2;
    plan.width = 16;
    plan.heads = 2;
    plan.context_tokens = 8;
    plan.batch_sequences = 6;  // not a multiple of four ranks
    plan.steps = 12;
    plan.learning_rate = 0.01;
  }

  // A sequence that a model can learn: each token is a function of the one before.
  static test::Tokens pattern(std::int64_t count) {
    test::Tokens tokens = {1};
    while (static_cast<std::int64_t>(tokens.size()) < count)
      tokens.push_back((tokens.back() * 5 + 3) % vocabulary);
    return tokens;
  }

  [[nodiscard]] Pretraining make(data::Share share) const { return {plan, vocabulary, at::kCPU, share}; }

  /// All steps by this process alone.
  std::vector<double> alone(Pretraining& pretraining) const {
    std::vector<double> losses;
    for (std::int64_t step = 0; step < plan.steps; ++step)
      losses.push_back(pretraining.step(step, text, [](std::span<float>) {}));
    return losses;
  }

  /// Collective: all steps by all ranks.
  std::vector<double> all_together(Pretraining& pretraining) {
    std::vector<double> losses;
    for (std::int64_t step = 0; step < plan.steps; ++step)
      losses.push_back(
          pretraining.step(step, text, [&](std::span<float> block) { reduction.all_sum(world, block); }));
    return losses;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(pretraining, Corpus)

BOOST_AUTO_TEST_CASE(ranks_together_do_what_one_does_alone) {
  Pretraining one = make({}), shared = make({.index = world.rank(), .of = world.size()});
  const std::vector<double> expected = alone(one), found = all_together(shared);
  for (std::size_t step = 0; step < found.size(); ++step)
    BOOST_TEST(found[step] == expected[step], tt::tolerance(1e-4));
  const Evaluation mine = shared.evaluate(held_out), theirs = one.evaluate(held_out);
  BOOST_TEST(mine.tokens == 60);
  BOOST_TEST(mine.loss_sum == theirs.loss_sum, tt::tolerance(1e-3));
}

BOOST_AUTO_TEST_CASE(ranks_hold_the_same_bits) {
  Pretraining shared = make({.index = world.rank(), .of = world.size()});
  std::vector<double> own = all_together(shared);
  own.push_back(shared.evaluate(held_out).loss_sum);
  const std::vector<double> all = world.all_gather(std::span<const double>(own));
  for (std::size_t i = 0; i < all.size(); ++i) BOOST_TEST(all[i] == own[i % own.size()]);
}

BOOST_AUTO_TEST_CASE(more_ranks_than_sequences) {
  plan.batch_sequences = 1;
  Pretraining one = make({}), shared = make({.index = world.rank(), .of = world.size()});
  const std::vector<double> expected = alone(one), found = all_together(shared);
  for (std::size_t step = 0; step < found.size(); ++step)
    BOOST_TEST(found[step] == expected[step], tt::tolerance(1e-4));
}

BOOST_AUTO_TEST_CASE(loss_starts_at_chance_and_falls) {
  plan.steps = 60;
  Pretraining pretraining = make({});
  const std::vector<double> losses = alone(pretraining);
  BOOST_TEST(std::abs(losses.front() - std::log(static_cast<double>(vocabulary))) < 0.1);
  BOOST_TEST(losses.back() < 0.5 * losses.front());
}

BOOST_AUTO_TEST_CASE(folder_is_read_back_as_the_same_model) {
  Pretraining pretraining = make({});
  (void)alone(pretraining);
  pretraining.write(folder / "base");
  const model::Architecture architecture = model::read_architecture(folder / "base");
  BOOST_TEST(architecture.vocabulary == vocabulary);
  BOOST_TEST(architecture.positions == 8);
  std::int64_t count = 0;
  for (const model::WeightSpec& spec : model::weight_specs(architecture)) count += spec.count();
  BOOST_TEST(pretraining.parameters() == count);
  const auto base = model::load_base_model(folder / "base", at::kFloat, at::kCPU);
  const adapter::Parameters nothing(architecture, {.experts = 0, .gate = adapter::Gate::none}, at::kCPU);
  const SplitReport report = evaluate(*base, nothing, held_out, {.context = 8});
  BOOST_TEST(report.evaluation.loss_sum == pretraining.evaluate(held_out).loss_sum);
}

BOOST_AUTO_TEST_CASE(seed_decides_the_weights) {
  Pretraining first = make({}), again = make({});
  plan.seed = 1;
  Pretraining other = make({});
  BOOST_TEST(first.evaluate(held_out).loss_sum == again.evaluate(held_out).loss_sum);
  BOOST_TEST(first.evaluate(held_out).loss_sum != other.evaluate(held_out).loss_sum);
}

BOOST_AUTO_TEST_CASE(a_loss_that_is_not_finite_stops_every_rank) {
  plan.learning_rate = 1e30;
  Pretraining shared = make({.index = world.rank(), .of = world.size()});
  BOOST_CHECK_THROW((void)all_together(shared), NumericError);
  BOOST_TEST(world.all_sum(std::int64_t{1}) == world.size());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::train
