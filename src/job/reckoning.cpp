#include "comigs/job/reckoning.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "comigs/adapter/footprint.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/weights.hpp"

namespace comigs::job {

namespace {

// The size of the base's files if rank 0 has to convert it before a run; else 0.
std::int64_t weights_converted(const Job& job, const config::Config& config, bool cuda) {
  const std::filesystem::path folder = config.model.folder;
  const bool mapped =
      model::can_be_mapped(folder, model::weight_specs(job.architecture), stored_type(config.run.precision));
  if (cuda || mapped) return 0;
  std::int64_t bytes = 0;
  for (const std::filesystem::path& file : model::weight_files(folder))
    bytes += static_cast<std::int64_t>(std::filesystem::file_size(file));
  return bytes;
}

constexpr double unlimited = 1e6;  // GiB

// Smaller micro-batches than `sequences`, falling, of a batch in parts of one size; not all of the many small
// ones.
std::vector<std::int64_t> smaller(std::int64_t batch, std::int64_t sequences) {
  std::vector<std::int64_t> sizes;
  const auto add = [&](std::int64_t size) {
    if (size < sequences && (sizes.empty() || size < sizes.back())) sizes.push_back(size);
  };
  for (std::int64_t parts = 1; parts <= batch; parts += 1 + parts / 4) add((batch + parts - 1) / parts);
  add(1);
  return sizes;
}

bool is_allowed(const federation::Method& method, const config::Config& config) {
  try {
    federation::check_method(method, config);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

}  // namespace

Cost Reckoning::cost(const config::Config& config, std::size_t user) const {
  const auto users = federation::user_models(*job_.method, config.users);
  const CostSetup setup{.method = *job_.method,
                        .config = config,
                        .users = users,
                        .manifest = job_.manifest,
                        .architecture = job_.architecture,
                        .computation = computation(config.run, place_.device),
                        .weights_converted = weights_converted(job_, config, place_.device.is_cuda())};
  return job::cost(setup, user);
}

Cost Reckoning::least_cost(const config::Config& config, std::size_t user) const {
  try {
    return cost(config, user);
  } catch (const ConfigError&) {  // beyond the user's budget, as `problems` says
    config::Config smallest = config;
    smallest.users[user].micro_batch_sequences = 1;
    smallest.users[user].memory = unlimited;
    return cost(smallest, user);
  }
}

std::vector<Cost> Reckoning::costs(const config::Config& config) const {
  std::vector<Cost> costs;
  for (std::size_t user = 0; user < job_.users.size(); ++user) costs.push_back(least_cost(config, user));
  return costs;
}

std::vector<Reckoning::Demand> Reckoning::demands() const {
  std::vector<Demand> demands;
  bool all_have_budgets = true;
  for (std::size_t user = 0; user < job_.users.size(); ++user) {
    const std::string& name = job_.manifest.users[user].name;
    const double memory = job_.config.users[user].memory;
    if (memory > 0.0) {
      demands.push_back({.who = fmt::format("user {} needs", name),
                         .limit_is = fmt::format(
                             "its memory budget ([user.{}] memory), the program itself not counted", user),
                         .limit_bytes = memory * gib,
                         .user = user,
                         .by_budget = true});
      continue;
    }
    all_have_budgets = false;
    if (place_.device.is_cuda() && place_.memory_bytes > 0)
      demands.push_back({.who = fmt::format("user {} needs", name),
                         .limit_is = "this machine's GPU",
                         .limit_bytes = static_cast<double>(place_.memory_bytes),
                         .user = user});
  }
  if (!all_have_budgets && place_.device.is_cpu())
    demands.push_back({.who = job_.users.size() == 1
                                  ? fmt::format("user {} needs", job_.manifest.users[0].name)
                                  : fmt::format("all {} users need", job_.users.size()),
                       .limit_is = "this machine",
                       .limit_bytes = static_cast<double>(place_.memory_bytes),
                       .user = {}});
  return demands;
}

double Reckoning::bytes(const Demand& demand, const config::Config& config) const {
  if (!demand.user) return static_cast<double>(memory_of_node(costs(config), place_.device.is_cuda()));
  const Cost cost = least_cost(config, *demand.user);
  if (!demand.by_budget) return static_cast<double>(cost.memory.total());
  // What train holds a budget to.
  const adapter::UserModel user = federation::user_models(*job_.method, config.users)[*demand.user];
  const std::int64_t tokens = cost.micro_batch_sequences * config.users[*demand.user].context_tokens;
  return static_cast<double>(adapter::footprint(job_.architecture, user,
                                                computation(config.run, place_.device), tokens,
                                                cost.micro_batch_sequences)
                                 .total());
}

// With another value of a user option for those who are asked, written as the command line takes it.
Reckoning::Change Reckoning::with(const Change& from, const Demand& demand, const std::string& option,
                                  std::int64_t config::User::*member, std::int64_t most) const {
  Change to = from;
  std::vector<std::int64_t> values;
  for (std::size_t user = 0; user < to.config.users.size(); ++user) {
    if (demand.user.value_or(user) != user) continue;
    config::User& own = to.config.users[user];
    const std::int64_t present =
        member == &config::User::micro_batch_sequences ? own.sequences_at_a_time() : own.*member;
    values.push_back(own.*member = std::min(present, most));
  }
  if (std::ranges::count(values, values.front()) == std::ssize(values)) values.resize(1);
  to.options +=
      fmt::format("{}--{}{} {}", from.options.empty() ? "" : " ",
                  demand.user ? fmt::format("user.{}.", *demand.user) : "", option, fmt::join(values, ","));
  return to;
}

std::vector<Reckoning::Change> Reckoning::changes(const Demand& demand) const {
  std::int64_t batch = 0, at_a_time = 0, context = 0;
  for (std::size_t user = 0; user < job_.users.size(); ++user) {
    if (demand.user.value_or(user) != user) continue;
    const config::User& own = job_.config.users[user];
    batch = std::max(batch, own.batch_sequences);
    at_a_time = std::max(at_a_time, own.sequences_at_a_time());
    context = std::max(context, own.context_tokens);
  }
  std::vector<Change> precisions = {{.options = {}, .config = job_.config}};
  if (job_.config.run.precision != config::Precision::bf16) {
    precisions.push_back({.options = "--precision bf16", .config = job_.config});
    precisions.back().config.run.precision = config::Precision::bf16;
  }
  std::vector<Change> changes;
  for (const Change& from : precisions) {
    if (!from.options.empty()) changes.push_back(from);
    if (demand.by_budget) continue;  // which makes micro-batches smaller by itself
    for (const std::int64_t size : smaller(batch, at_a_time))
      changes.push_back(
          with(from, demand, "micro-batch-sequences", &config::User::micro_batch_sequences, size));
  }
  if (demand.user && !job_.method->experts)
    for (std::int64_t experts = job_.users[*demand.user].experts - 1; experts >= 1; --experts)
      changes.push_back(with(precisions.front(), demand, "experts", &config::User::experts, experts));
  for (const Change& from : precisions)
    for (std::int64_t shorter = context / 2; shorter >= 16; shorter /= 2)
      changes.push_back(with(from, demand, "context-tokens", &config::User::context_tokens, shorter));
  std::erase_if(changes, [&](const Change& change) { return !is_allowed(*job_.method, change.config); });
  return changes;
}

std::string Reckoning::remedy(const Demand& demand) const {
  for (const Change& change : changes(demand))
    if (const double needed = bytes(demand, change.config); needed <= demand.limit_bytes)
      return fmt::format("{} makes it {}", change.options, format_bytes(std::llround(needed)));
  return "no option alone makes it fit; take a smaller base model or more memory";
}

// On how many nodes like this one, filled in the order of users, there is room for all; 0: on none.
std::size_t Reckoning::nodes(const Demand& demand) const {
  const std::vector<Cost> all = costs(job_.config);
  for (std::size_t nodes = 2; nodes <= all.size(); ++nodes) {
    const std::size_t each = (all.size() + nodes - 1) / nodes;
    bool fits = true;
    for (std::size_t first = 0; first < all.size(); first += each) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
      const auto end = all.begin() + static_cast<std::ptrdiff_t>(std::min(first + each, all.size()));
      fits = fits &&
             static_cast<double>(memory_of_node({begin, end}, place_.device.is_cuda())) <= demand.limit_bytes;
    }
    if (fits) return nodes;
  }
  return 0;
}

std::vector<std::string> Reckoning::problems() const {
  std::vector<std::string> problems;
  for (const Demand& demand : demands()) {
    const double needed = bytes(demand, job_.config);
    if (needed <= demand.limit_bytes) continue;
    const std::size_t enough = demand.user ? 0 : nodes(demand);
    problems.push_back(
        fmt::format("{} {} of the {} of {}: {}{}", demand.who, format_bytes(std::llround(needed)),
                    format_bytes(std::llround(demand.limit_bytes)), demand.limit_is, remedy(demand),
                    enough > 0 ? fmt::format("; {} such nodes have room for it", enough) : ""));
  }
  return problems;
}

}  // namespace comigs::job
