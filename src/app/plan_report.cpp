#include "plan_report.hpp"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "comigs/adapter/kind.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/version.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/config/value.hpp"
#include "json_text.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string plural(std::int64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::int64_t rounds(const job::Plan& plan) { return plan.job.config.run.rounds; }

// Of the rounds' sum; 0 where there are none.
double a_round(const job::Plan& plan, double sum) {
  return rounds(plan) > 0 ? sum / static_cast<double>(rounds(plan)) : 0.0;
}

std::string format_operations(double count) {
  constexpr const char* units[] = {"M", "G", "T", "P", "E"};
  std::size_t unit = 0;
  count /= 1e6;
  while (count >= 1000.0 && unit + 1 < std::size(units)) {
    count /= 1000.0;
    ++unit;
  }
  return fmt::format("{:.1f} {}", count, units[unit]);
}

std::string head(const job::Plan& plan) {
  const job::Job& job = plan.job;
  const config::Run& run = job.config.run;
  return fmt::format(
      "comigs {}: {} on {}, {}, {}, seed {}\n"
      "base {}: {}, {} layers, width {}, vocabulary {}, {}, computed on {}\n",
      program_version, job.method->name, job.manifest.name,
      plural(static_cast<std::int64_t>(job.users.size()), "user"), plural(run.rounds, "round"), run.seed,
      job.config.model.folder, job.architecture.family, job.architecture.layers, job.architecture.width,
      job.architecture.vocabulary, config::print(run.precision), plan.place);
}

std::string work(const job::Plan& plan) {
  Rows rows;
  for (std::size_t u = 0; u < plan.costs.size(); ++u) {
    const adapter::UserModel& user = plan.job.users[u];
    const job::Cost& cost = plan.costs[u];
    const std::int64_t batch = plan.job.config.users[u].batch_sequences;
    rows.push_back({plan.job.manifest.users[u].name,
                    fmt::format("{} ({} shared)", user.experts, user.generalists.size()),
                    std::to_string(user.rank_of_experts()), group_digits(cost.parameters),
                    cost.micro_batch_sequences < batch
                        ? fmt::format("{}, {} at a time", batch, cost.micro_batch_sequences)
                        : std::to_string(batch),
                    format_operations(a_round(plan, cost.flops())),
                    format_bytes(std::llround(a_round(plan, static_cast<double>(cost.bytes)))),
                    plan.time ? format_duration(plan.time->rounds[u]) : "-"});
  }
  return format_table(
      {"a round", "experts", "rank", "trainable", "sequences a step", "FLOPs", "sent", "time"}, rows);
}

std::string memory(const job::Plan& plan) {
  Rows rows;
  for (std::size_t u = 0; u < plan.costs.size(); ++u) {
    const job::PeakMemory& memory = plan.costs[u].memory;
    rows.push_back({plan.job.manifest.users[u].name, format_bytes(memory.base), format_bytes(memory.training),
                    format_bytes(memory.activations), format_bytes(memory.program),
                    format_bytes(memory.total())});
  }
  return format_table({"peak memory", "base", "training", "activations", "program", "in all"}, rows);
}

std::string totals(const job::Plan& plan) {
  std::string text = fmt::format("all users on one node: {} of {}, the base and libraries in it once\n",
                                 format_bytes(plan.memory_of_node), format_bytes(plan.memory_of_machine));
  if (!plan.time) return text + "time: not measured\n";
  return text + fmt::format("time: {} in all: {} to start, then {} of {} ({})\n",
                            format_duration(plan.time->total(rounds(plan))),
                            format_duration(plan.time->start), plural(rounds(plan), "round"),
                            format_duration(plan.time->round()), plan.time->how);
}

using Json = nlohmann::ordered_json;

Json value_as_json(const config::OptionValue& value) {
  if (value.is_flag) return value.text == "true";
  const Json number = value.is_number ? Json::parse(value.text, nullptr, false) : Json();
  return number.is_number() ? number : Json(value.text);
}

// Every user's own options, or those of the run by section.
Json options_as_json(const config::Config& config, std::size_t user, bool own) {
  Json options = Json::object();
  for (const config::OptionValue& value : config::values(config, user)) {
    if (value.is_of_user != own) continue;
    Json& home = own ? options : options[std::string(value.section)];
    home[std::string(value.name)] = value_as_json(value);
  }
  return options;
}

Json user_as_json(const job::Plan& plan, const config::Config& acting, std::size_t u) {
  const adapter::UserModel& user = plan.job.users[u];
  const job::Cost& cost = plan.costs[u];
  Json json = {{"name", plan.job.manifest.users[u].name},
               {"experts", user.experts},
               {"generalists", user.generalists}};
  for (const auto& [name, size] : user.kind->sizes(user)) json[name] = size;
  json.update({{"micro_batch_sequences", cost.micro_batch_sequences},
               {"parameters", cost.parameters},
               {"memory_bytes",
                {{"base", cost.memory.base},
                 {"training", cost.memory.training},
                 {"activations", cost.memory.activations},
                 {"program", cost.memory.program},
                 {"total", cost.memory.total()}}},
               {"host_memory_bytes", cost.host_memory},
               {"flops_round", a_round(plan, cost.flops())},
               {"bytes_round", std::llround(a_round(plan, static_cast<double>(cost.bytes)))},
               {"seconds_round", plan.time ? Json(plan.time->rounds[u]) : Json()},
               {"options", options_as_json(acting, u, true)}});
  return json;
}

}  // namespace

std::string plan_as_text(const job::Plan& plan) {
  std::string text = fmt::format("{}\n{}\n{}\n{}", head(plan), work(plan), memory(plan), totals(plan));
  if (!plan.problems.empty()) text += "\ndoes not fit:\n";
  for (const std::string& problem : plan.problems) text += fmt::format("  - {}\n", problem);
  return text;
}

std::string plan_as_json(const job::Plan& plan) {
  const job::Job& job = plan.job;
  const config::Config acting = plan.as_it_acts();
  Json users = Json::array(), seconds = {{"start", nullptr}, {"round", nullptr}, {"total", nullptr}};
  for (std::size_t u = 0; u < plan.costs.size(); ++u) users.push_back(user_as_json(plan, acting, u));
  if (plan.time)
    seconds = {{"start", plan.time->start},
               {"round", plan.time->round()},
               {"total", plan.time->total(rounds(plan))}};
  return json_text({{"method", job.method->name},
                    {"rounds", rounds(plan)},
                    {"precision", config::print(job.config.run.precision)},
                    {"users", users},
                    {"seconds", seconds},
                    {"memory_bytes_node", plan.memory_of_node},
                    {"problems", plan.problems},
                    {"version", program_version},
                    {"data_set", job.manifest.name},
                    {"base",
                     {{"family", job.architecture.family},
                      {"layers", job.architecture.layers},
                      {"width", job.architecture.width},
                      {"vocabulary", job.architecture.vocabulary}}},
                    {"computed_on", plan.place},
                    {"measured", plan.time ? Json(plan.time->how) : Json()},
                    {"memory_bytes_machine", plan.memory_of_machine},
                    {"remark", job.remark.empty() ? Json() : Json(job.remark)},
                    {"options", options_as_json(acting, 0, false)}});
}

}  // namespace comigs::app
