#include "columns.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <numeric>
#include <utility>

namespace comigs::results {
namespace {

using io::hdf5::Type;
using std::string;

// The member that a chain of members leads to.
template <auto First, auto... Rest>
Place at(UserRound& round) {
  return &((round.*First).*....*Rest);
}

double perplexity(const Evaluation& evaluation) { return evaluation.perplexity(); }
double loss(const Evaluation& evaluation) { return evaluation.loss(); }

Column evaluation(Place (*place)(UserRound&), const string& group, const string& split, const string& on) {
  return {.place = place,
          .arrays = {
              {group + "perplexity/" + split, Type::float64, "1", "perplexity on " + on, perplexity},
              {group + "loss/" + split, Type::float64, "nat", "mean cross entropy a token on " + on, loss}}};
}

template <auto Split>
Column after(const string& split, const string& tokens) {
  return evaluation(at<&UserRound::after, Split>, "", split, tokens);
}

template <auto Split>
Column before(const string& split, const string& tokens) {
  Column column = evaluation(at<&UserRound::before, Split>, "before_aggregation/", split,
                             tokens + ", before the last aggregation");
  column.each_round = false;
  return column;
}

Column number(Place (*place)(UserRound&), Shown shown) {
  return {.place = place, .arrays = {std::move(shown)}};
}

Column list(Place (*place)(UserRound&), std::vector<string> dimensions, Shown shown) {
  return {.place = place, .arrays = {std::move(shown)}, .dimensions = std::move(dimensions)};
}

template <auto Phase>
Column seconds(const string& phase, const string& words) {
  return number(at<&UserRound::seconds, Phase>,
                {"time/" + phase, Type::float64, "s", "wall-clock time of " + words});
}

}  // namespace

namespace {

using Columns = std::vector<Column>;

Columns evaluations(const string& train_tokens_evaluated) {
  using Splits = SplitEvaluations;
  const string validation = "the whole validation split", test = "the whole test split",
               aggregated = ", after the round's aggregation";
  return {after<&Splits::train>("train", train_tokens_evaluated),
          after<&Splits::validation>("validation", validation + aggregated),
          before<&Splits::validation>("validation", validation),
          after<&Splits::test>("test", test + aggregated), before<&Splits::test>("test", test)};
}

Columns experts(bool by_sequence) {
  using Routing = RoutingStatistics;
  const string of = by_sequence ? " the examples of the test split" : " the tokens of the test split";
  return {
      list(at<&UserRound::routing, &Routing::score>, {"layer", "expert"},
           {"routing/score", Type::float32, "1", "mean gate weight over" + of}),
      list(at<&UserRound::routing, &Routing::load>, {"layer", "expert"},
           {"routing/load", Type::float32, "1",
            "fraction of" + of +
                (by_sequence ? " that have the largest weight there" : " with the expert in their top-k")}),
      list(at<&UserRound::routing, &Routing::entropy>, {"layer"},
           {"routing/entropy", Type::float32, "nat",
            "mean entropy of the gate over" + of +
                (by_sequence ? "" : "; top-1 of several experts: of the softmax over all of them")}),
      list(at<&UserRound::update_norm>, {"layer", "expert", "projection"},
           {"expert/update_norm", Type::float32, "1", "Frobenius norm of the expert's update, gamma B A"}),
  };
}

Columns categories() {
  return {list(at<&UserRound::category_loss>, {"category"},
               {"category/loss_test", Type::float64, "nat",
                "mean cross entropy a response token on the category's examples of the test split"}),
          list(at<&UserRound::category_perplexity>, {"category"},
               {"category/perplexity_test", Type::float64, "1",
                "perplexity on the responses of the category's examples of the test split"})};
}

Columns prompts() {
  return {list(at<&UserRound::prompt_norm>, {"expert"},
               {"prompt/norm", Type::float32, "1", "Frobenius norm of the group of prompts"}),
          list(at<&UserRound::prompt_shift>, {"expert"},
               {"prompt/shift", Type::float32, "1",
                "Frobenius norm of the difference of the group of prompts from its beginning"})};
}

Columns sequence_gate() {
  return {
      list(at<&UserRound::prompt_weight>, {"category", "expert"},
           {"prompt/weight", Type::float32, "1",
            "mean gate weight over the category's examples of the test split"}),
      list(at<&UserRound::prompt_entropy>, {"category"},
           {"prompt/entropy", Type::float32, "nat",
            "mean entropy of the gate over the category's examples of the test split"}),
      number(at<&UserRound::warmup_accuracy>,
             {"prompt/warmup_accuracy", Type::float64, "1",
              "share of the validation examples whose own category has the largest gate weight, where the "
              "gate is warmed up to tell categories apart"})};
}

Columns aggregation() {
  return {list(at<&UserRound::aggregation_weight>, {"source_user"},
               {"aggregation/weight", Type::float32, "1",
                "weight of source_user's shared parameters in user's new ones"}),
          number(at<&UserRound::ranks_in_use>,
                 {"aggregation/lora_rank", Type::int64, "1",
                  "ranks of the LoRA factors in use after the round (HetLoRA prunes)"})};
}

Columns times() {
  using Seconds = PhaseSeconds;
  return {
      seconds<&Seconds::experts>("experts", "training the experts"),
      seconds<&Seconds::routers>("routers", "training the routers"),
      seconds<&Seconds::aggregation>("aggregation", "the aggregation"),
      seconds<&Seconds::evaluation>("evaluation", "the evaluation"),
      seconds<&Seconds::checkpoint>("checkpoint", "writing the checkpoint"),
      seconds<&Seconds::writing>("writing", "writing results, since the row before was whole"),
      seconds<&Seconds::total>("total", "the whole round"),
  };
}

Columns resources() {
  return {
      number(at<&UserRound::participation>,
             {"aggregation/participation", Type::int64, "1",
              "1: the user took part in the round; 0: its training had failed and it had dropped out"}),
      number(at<&UserRound::communication_bytes>,
             {"communication/bytes", Type::int64, "byte", "payload sent in the aggregation"}),
      number(at<&UserRound::peak_memory_bytes>,
             {"memory/peak", Type::int64, "byte",
              "most device memory, or resident memory without a device, so far"}),
  };
}

}  // namespace

std::vector<Column> columns(const RoundShape& shape, const string& train_tokens_evaluated) {
  Columns all;
  const auto add = [&](Columns some) { std::ranges::move(some, std::back_inserter(all)); };
  add(evaluations(train_tokens_evaluated));
  add(experts(shape.gated));
  if (shape.categories > 0) add(categories());
  if (shape.prompts) add(prompts());
  if (shape.gated) add(sequence_gate());
  add(aggregation());
  add(times());
  add(resources());
  return all;
}

std::uint64_t length_of(const string& dimension, const RoundShape& shape) {
  if (dimension == "layer") return static_cast<std::uint64_t>(shape.layers);
  if (dimension == "expert") return static_cast<std::uint64_t>(shape.experts);
  if (dimension == "category") return static_cast<std::uint64_t>(shape.categories);
  return static_cast<std::uint64_t>(dimension == "projection" ? shape.projections : shape.users);
}

std::vector<std::uint64_t> extent_of(const std::vector<string>& dimensions, const RoundShape& shape) {
  std::vector<std::uint64_t> extent;
  for (const string& dimension : dimensions) extent.push_back(length_of(dimension, shape));
  return extent;
}

std::vector<std::uint64_t> user_extent(const Column& column, const UserDescription& user, RoundShape shape) {
  shape.experts = user.experts;
  return extent_of(column.dimensions, shape);
}

std::uint64_t product(std::span<const std::uint64_t> extent) {
  return std::accumulate(extent.begin(), extent.end(), std::uint64_t{1}, std::multiplies());
}

}  // namespace comigs::results
