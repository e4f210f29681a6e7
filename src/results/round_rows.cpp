#include "round_rows.hpp"

#include <functional>
#include <limits>
#include <map>
#include <string>

#include "layout.hpp"

namespace comigs::results {
namespace {

using io::hdf5::Group;

constexpr double missing = std::numeric_limits<double>::quiet_NaN();

// The numbers of a round, all NaN at first, by the path of the array that shows them.
class Row {
 public:
  explicit Row(const std::vector<Columns>& columns)
      : values_(columns.back().first + columns.back().count, missing) {
    for (const Columns& of_array : columns)
      places_[of_array.path] = std::span(values_).subspan(of_array.first, of_array.count);
  }
  [[nodiscard]] std::span<double> at(const std::string& path) const { return places_.at(path); }
  [[nodiscard]] std::span<const double> values() const { return values_; }

 private:
  std::vector<double> values_;
  std::map<std::string, std::span<double>> places_;
};

template <class Extract>
void fill_by_user(const Row& row, const std::string& path, const std::vector<UserRound>& rounds,
                  Extract extract) {
  const std::span<double> values = row.at(path);
  for (std::size_t user = 0; user < rounds.size(); ++user)
    values[user] = static_cast<double>(extract(rounds[user]));
}

void fill_evaluations(const Row& row, const std::vector<UserRound>& rounds) {
  const auto fill = [&](const std::string& split, Evaluation SplitEvaluations::*member) {
    fill_by_user(row, "perplexity/" + split, rounds,
                 [=](const UserRound& round) { return (round.after.*member).perplexity(); });
    fill_by_user(row, "loss/" + split, rounds,
                 [=](const UserRound& round) { return (round.after.*member).loss(); });
  };
  fill("train", &SplitEvaluations::train);
  fill("validation", &SplitEvaluations::validation);
  fill("test", &SplitEvaluations::test);
}

void fill_costs(const Row& row, const std::vector<UserRound>& rounds) {
  const auto fill = [&](const std::string& phase, double PhaseSeconds::*member) {
    fill_by_user(row, "time/" + phase, rounds, [=](const UserRound& round) { return round.seconds.*member; });
  };
  fill("experts", &PhaseSeconds::experts);
  fill("routers", &PhaseSeconds::routers);
  fill("aggregation", &PhaseSeconds::aggregation);
  fill("evaluation", &PhaseSeconds::evaluation);
  fill("checkpoint", &PhaseSeconds::checkpoint);
  fill("writing", &PhaseSeconds::writing);
  fill("total", &PhaseSeconds::total);
  fill_by_user(row, "aggregation/participation", rounds, std::mem_fn(&UserRound::participation));
  fill_by_user(row, "aggregation/lora_rank", rounds, std::mem_fn(&UserRound::lora_rank));
  fill_by_user(row, "communication/bytes", rounds, std::mem_fn(&UserRound::communication_bytes));
  fill_by_user(row, "memory/peak", rounds, std::mem_fn(&UserRound::peak_memory_bytes));
}

struct Spread {
  const std::vector<UserDescription>& users;
  const RoundShape& shape;
};

// Every user's [layer, its experts, width] in [user, layer, most experts, width]; what a user lacks stays
// NaN.
void fill_by_expert(const Row& row, const std::string& path, const Spread& spread,
                    const std::vector<UserRound>& rounds, std::size_t width,
                    const std::function<const std::vector<float>&(const UserRound&)>& extract) {
  const auto layers = static_cast<std::size_t>(spread.shape.layers);
  const auto most = static_cast<std::size_t>(spread.shape.experts);
  const std::span<double> values = row.at(path);
  for (std::size_t user = 0; user < rounds.size(); ++user) {
    const std::vector<float>& own = extract(rounds[user]);
    const auto own_width = static_cast<std::size_t>(spread.users[user].experts) * width;
    for (std::size_t i = 0; i < own.size(); ++i)
      values[(user * layers + i / own_width) * most * width + i % own_width] = own[i];
  }
}

// Every user's list of `length`; it stays NaN where it has none. The arrays are of float32.
template <class Extract>
void fill_lists(const Row& row, const std::string& path, const std::vector<UserRound>& rounds,
                std::size_t length, Extract extract) {
  const std::span<double> values = row.at(path);
  for (std::size_t user = 0; user < rounds.size(); ++user) {
    const auto& own = extract(rounds[user]);
    for (std::size_t i = 0; i < own.size(); ++i) values[user * length + i] = static_cast<float>(own[i]);
  }
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

void append_row(const Group& root, const RunDescription& run, const RoundShape& shape,
                const std::vector<UserRound>& rounds) {
  const Spread spread{run.users, shape};
  const Row row(row_columns(run, shape));
  row.at("round")[0] = static_cast<double>(rounds.front().round);
  fill_evaluations(row, rounds);
  fill_by_expert(
      row, "routing/score", spread, rounds, 1,
      [](const UserRound& round) -> const auto& { return round.routing.score; });
  fill_by_expert(
      row, "routing/load", spread, rounds, 1,
      [](const UserRound& round) -> const auto& { return round.routing.load; });
  fill_lists(
      row, "routing/entropy", rounds, static_cast<std::size_t>(shape.layers),
      [](const UserRound& round) -> const auto& { return round.routing.entropy; });
  fill_by_expert(
      row, "expert/update_norm", spread, rounds, 2,
      [](const UserRound& round) -> const auto& { return round.update_norm; });
  fill_lists(
      row, "aggregation/weight", rounds, rounds.size(),
      [](const UserRound& round) -> const auto& { return round.aggregation_weight; });
  fill_costs(row, rounds);
  write_before_aggregation(root, rounds);
  root.open_dataset(rows_path).append_row(row.values());
}

}  // namespace comigs::results
