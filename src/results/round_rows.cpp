#include "round_rows.hpp"

#include <functional>
#include <limits>
#include <string>

namespace comigs::results {
namespace {

using io::hdf5::Group;

constexpr float missing = std::numeric_limits<float>::quiet_NaN();

template <class Value, class Rows, class Extract>
void append_by_user(const Group& root, const std::string& path, const Rows& rows, Extract extract) {
  std::vector<Value> values;
  for (const UserRound& row : rows) {
    values.push_back(extract(row));
  }
  root.open_dataset(path).append_row(values);
}

void append_evaluations(const Group& root, const std::vector<UserRound>& rows) {
  const auto append = [&](const std::string& split, Evaluation SplitEvaluations::*member) {
    append_by_user<double>(root, "perplexity/" + split, rows,
                           [=](const UserRound& row) { return (row.after.*member).perplexity(); });
    append_by_user<double>(root, "loss/" + split, rows,
                           [=](const UserRound& row) { return (row.after.*member).loss(); });
  };
  append("train", &SplitEvaluations::train);
  append("validation", &SplitEvaluations::validation);
  append("test", &SplitEvaluations::test);
}

void append_costs(const Group& root, const std::vector<UserRound>& rows) {
  const auto append = [&](const std::string& phase, double PhaseSeconds::*member) {
    append_by_user<double>(root, "time/" + phase, rows,
                           [=](const UserRound& row) { return row.seconds.*member; });
  };
  append("experts", &PhaseSeconds::experts);
  append("routers", &PhaseSeconds::routers);
  append("aggregation", &PhaseSeconds::aggregation);
  append("evaluation", &PhaseSeconds::evaluation);
  append("checkpoint", &PhaseSeconds::checkpoint);
  append("round", &PhaseSeconds::round);
  append_by_user<std::int64_t>(root, "aggregation/participation", rows,
                               std::mem_fn(&UserRound::participation));
  append_by_user<std::int64_t>(root, "communication/bytes", rows,
                               std::mem_fn(&UserRound::communication_bytes));
  append_by_user<std::int64_t>(root, "memory/peak", rows, std::mem_fn(&UserRound::peak_memory_bytes));
}

struct Spread {
  const std::vector<UserDescription>& users;
  const RoundShape& shape;
};

// Every user's [layer, its experts, width] in one row of [user, layer, most experts, width]; what a user
// lacks is NaN.
void append_by_expert(const Group& root, const std::string& path, const Spread& spread,
                      const std::vector<UserRound>& rows, std::size_t width,
                      const std::function<const std::vector<float>&(const UserRound&)>& extract) {
  const auto layers = static_cast<std::size_t>(spread.shape.layers);
  const auto most = static_cast<std::size_t>(spread.shape.experts);
  std::vector<float> values(rows.size() * layers * most * width, missing);
  for (std::size_t user = 0; user < rows.size(); ++user) {
    const std::vector<float>& own = extract(rows[user]);
    const auto own_width = static_cast<std::size_t>(spread.users[user].experts) * width;
    for (std::size_t i = 0; i < own.size(); ++i) {
      values[(user * layers + i / own_width) * most * width + i % own_width] = own[i];
    }
  }
  root.open_dataset(path).append_row(values);
}

// Every user's list of `length`, NaN where it has none.
template <class Extract>
void append_lists(const Group& root, const std::string& path, const std::vector<UserRound>& rows,
                  std::size_t length, Extract extract) {
  std::vector<float> values(rows.size() * length, missing);
  for (std::size_t user = 0; user < rows.size(); ++user) {
    const auto& own = extract(rows[user]);
    for (std::size_t i = 0; i < own.size(); ++i) {
      values[user * length + i] = static_cast<float>(own[i]);
    }
  }
  root.open_dataset(path).append_row(values);
}

void write_before_aggregation(const Group& root, const std::vector<UserRound>& rows) {
  bool evaluated = false;
  for (const UserRound& row : rows) {
    evaluated = evaluated || row.before.validation.tokens > 0 || row.before.test.tokens > 0;
  }
  if (!evaluated) {
    return;
  }
  const auto write = [&](const std::string& split, Evaluation SplitEvaluations::*member) {
    std::vector<double> perplexity, loss;
    for (const UserRound& row : rows) {
      perplexity.push_back((row.before.*member).perplexity());
      loss.push_back((row.before.*member).loss());
    }
    root.open_dataset("before_aggregation/perplexity/" + split).write(perplexity);
    root.open_dataset("before_aggregation/loss/" + split).write(loss);
  };
  write("validation", &SplitEvaluations::validation);
  write("test", &SplitEvaluations::test);
  root.open_group("before_aggregation").set_attribute("round", rows.front().round);
}

}  // namespace

void append_rows(Group root, const std::vector<UserDescription>& users, const RoundShape& shape,
                 const std::vector<UserRound>& rows) {
  const Spread spread{users, shape};
  const auto layers = static_cast<std::size_t>(shape.layers);
  root.open_dataset("round").append_row(std::span(&rows.front().round, 1));
  append_evaluations(root, rows);
  append_by_expert(
      root, "routing/score", spread, rows, 1,
      [](const UserRound& row) -> const auto& { return row.routing.score; });
  append_by_expert(
      root, "routing/load", spread, rows, 1,
      [](const UserRound& row) -> const auto& { return row.routing.load; });
  append_lists(
      root, "routing/entropy", rows, layers,
      [](const UserRound& row) -> const auto& { return row.routing.entropy; });
  append_by_expert(
      root, "expert/update_norm", spread, rows, 2,
      [](const UserRound& row) -> const auto& { return row.update_norm; });
  append_lists(
      root, "aggregation/weight", rows, rows.size(),
      [](const UserRound& row) -> const auto& { return row.aggregation_weight; });
  append_by_user<std::int64_t>(root, "aggregation/lora_rank", rows, std::mem_fn(&UserRound::lora_rank));
  append_costs(root, rows);
  write_before_aggregation(root, rows);
}

}  // namespace comigs::results
