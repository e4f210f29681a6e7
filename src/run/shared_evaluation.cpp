#include "comigs/run/shared_evaluation.hpp"

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>
#include <vector>

#include "comigs/base/error.hpp"

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
  std::string key = setup_.seat.evaluation_key(split);
  // Models of one look have one number.
  const auto look = std::ranges::find(setup_.users, setup_.users[setup_.seat.user()]);
  if (!key.empty()) key += fmt::format(", model {}", look - setup_.users.begin());
  const bool is_shared = repeats(setup_.roster.all_gather(std::span(&std::as_const(key), 1)));
  return {.split = split, .key = std::move(key), .is_shared = is_shared};
}

std::optional<comm::Communicator> SharedEvaluation::all_group(const Text& text, bool is_present) const {
  if (!text.is_shared) return std::nullopt;
  const bool alone = !is_present || text.key.empty();
  return setup_.world.all_split_by(alone ? fmt::format("user {}", setup_.seat.user())
                                         : text.key + ", " + setup_.seat.parameters().digest());
}

std::optional<HeldOutReports> SharedEvaluation::all_evaluate(bool is_present, const AllDo& all_do,
                                                             const std::function<bool()>& stop) const {
  const Seat& seat = setup_.seat;
  const std::optional<comm::Communicator> on_validation = all_group(validation_, is_present),
                                          on_test = all_group(test_, is_present);
  std::vector<double> validation, test;
  all_do([&] {
    if (!is_present) return;
    validation = seat.batch_sums(validation_.split, share_in(on_validation), stop);
    test = seat.batch_sums(test_.split, share_in(on_test), stop);
  });
  if (!is_present) return std::nullopt;
  if (on_validation) validation = on_validation->all_gather(validation);
  if (on_test) test = on_test->all_gather(test);
  return HeldOutReports{.validation = seat.report(validation_.split, validation, share_in(on_validation).of),
                        .test = seat.report(test_.split, test, share_in(on_test).of)};
}

}  // namespace comigs::run
