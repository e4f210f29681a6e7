#include "comigs/run/shared_evaluation.hpp"

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/model/device.hpp"

namespace comigs::run {

namespace {

bool repeats(const std::vector<std::string>& keys) {
  std::set<std::string> seen;
  return std::ranges::any_of(keys, [&](const auto& key) { return !key.empty() && !seen.insert(key).second; });
}

data::Share share_in(const std::optional<comm::Communicator>& group) {
  return group ? data::Share{.index = group->rank(), .of = group->size()} : data::Share{};
}

}  // namespace

SharedEvaluation::SharedEvaluation(const Setup& setup)
    : setup_(setup),
      validation_(all_look_at(setup.seat.data().validation)),
      test_(all_look_at(setup.seat.data().test)) {}

SharedEvaluation::Text SharedEvaluation::all_look_at(const data::TokenShard& split) const {
  const Seat& seat = setup_.seat;
  std::string key = seat.evaluation_key(split);
  // Models of one look have one number. Another processor, or number of threads, finds other last bits.
  const auto look = std::ranges::find(setup_.users, setup_.users[seat.user()]);
  if (!key.empty())
    key += fmt::format(", model {}, {}", look - setup_.users.begin(), model::arithmetic(seat.device()));
  const bool is_shared = repeats(setup_.roster.all_gather(std::span(&std::as_const(key), 1)));
  return {.split = split, .key = std::move(key), .is_shared = is_shared};
}

std::optional<comm::Communicator> SharedEvaluation::all_group(const Text& text,
                                                              const std::string& model) const {
  if (!text.is_shared) return std::nullopt;
  const bool alone = model.empty() || text.key.empty();
  return setup_.world.all_split_by(alone ? fmt::format("user {}", setup_.seat.user())
                                         : text.key + ", " + model);
}

void SharedEvaluation::all_evaluate(const AllDo& all_do, const std::function<bool()>& stop,
                                    const std::function<void(const HeldOutReports&)>& take) const {
  const Seat& seat = setup_.seat;
  std::string model;
  if (validation_.is_shared || test_.is_shared) all_do([&] { model = seat.parameters().digest(); });
  const std::optional<comm::Communicator> on_validation = all_group(validation_, model),
                                          on_test = all_group(test_, model);
  std::vector<double> validation, test;
  all_do([&] {
    validation = seat.batch_sums(validation_.split, share_in(on_validation), stop);
    test = seat.batch_sums(test_.split, share_in(on_test), stop);
  });
  if (on_validation) validation = on_validation->all_gather(validation);
  if (on_test) test = on_test->all_gather(test);
  all_do([&] {
    take({.validation = seat.report(validation, share_in(on_validation).of),
          .test = seat.report(test, share_in(on_test).of)});
  });
}

}  // namespace comigs::run
