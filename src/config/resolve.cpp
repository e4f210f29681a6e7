#include "comigs/config/resolve.hpp"

#include "schema.hpp"

#include "comigs/base/error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>

namespace comigs::config {
namespace {

using Problems = std::vector<std::string>;

/// The record of one user, or of the run where nothing goes by user.
template <class Record>
Record applied(const Table<Record>& table, const Layered& layered, std::int64_t user) {
  Record record;
  for (const Setting& setting : layered.settings) {
    if (setting.user != all_users && setting.user != user) continue;
    const auto place = setting.values.size() > 1 ? static_cast<std::size_t>(user) : std::size_t{0};
    // A list of the wrong length has been found out; what it lacks does not matter here.
    if (place < setting.values.size()) table.options[setting.option].set(record, setting.values[place]);
  }
  return record;
}

/// The options of [user] that a job gives the user.
decltype(User::said) said_to(const Table<UserJob>& table, const Layered& layered, std::int64_t user) {
  decltype(User::said) names;
  for (const Setting& setting : layered.settings) {
    const OptionInfo& option = table.options[setting.option].info;
    if (option.section != table.per_user || (setting.user != all_users && setting.user != user)) continue;
    if (!layered.is_recorded) names.emplace(option.name);
  }
  return names;
}

/// "[run] rounds", "[user.2] experts": what a message is about.
std::string subject(const OptionInfo& option, std::int64_t user) {
  const std::string index = user == all_users ? "" : fmt::format(".{}", user);
  return fmt::format("[{}{}] {}", option.section, index, option.name);
}

/// What is wrong with one option's value; empty: nothing.
template <class Record>
std::string complaint(const Option<Record>& option, const Record& record) {
  const std::string value = option.print(record);
  if (!option.info.accepts(value, option.info.range)) {
    return fmt::format("found '{}', expected {}", printable(value), option.info.expected());
  }
  if (option.info.extra.required && value.empty())
    return fmt::format("not given; --{} is required", option.info.flag());
  return {};
}

/// Notes what `check` says of each user's record, once where it says the same of all.
template <class Record, class Check>
void check_users(const OptionInfo& option, const std::vector<Record>& records, const Check& check,
                 Problems& problems) {
  Problems found;
  for (const Record& record : records) found.push_back(check(record));
  const bool alike = std::equal(found.begin() + 1, found.end(), found.begin());
  for (std::size_t user = 0; user < (alike ? 1 : found.size()); ++user) {
    if (found[user].empty()) continue;
    const auto index = alike ? all_users : static_cast<std::int64_t>(user);
    problems.push_back(fmt::format("{}: {}", subject(option, index), found[user]));
  }
}

/// The checks that the table's rows carry: range, words, required. `records`: one a user, at least one.
template <class Record>
Problems row_problems(const Table<Record>& table, const std::vector<Record>& records) {
  Problems problems;
  for (const Option<Record>& option : table.options) {
    check_users(
        option.info, records, [&](const Record& record) { return complaint(option, record); }, problems);
  }
  return problems;
}

/// What the layers say that cannot be for this number of users.
Problems layer_problems(const Layered& layered, std::int64_t users) {
  Problems problems;
  for (const Setting& setting : layered.settings) {
    if (setting.user >= users) {
      problems.push_back(fmt::format("{}: found user {}, expected 0 to {}, as there {} {} user{}",
                                     setting.origin, setting.user, users - 1, users == 1 ? "is" : "are",
                                     users, users == 1 ? "" : "s"));
    }
    if (setting.values.size() > 1 && setting.values.size() != static_cast<std::size_t>(users)) {
      problems.push_back(fmt::format("{}: found {} values, expected one, or one for each of the {} users",
                                     setting.origin, setting.values.size(), users));
    }
  }
  return problems;
}

std::string micro_batch_complaint(const UserJob& job) {
  if (job.user.micro_batch_sequences <= job.user.batch_sequences) return {};
  return fmt::format("found {}, expected at most batch_sequences, which is {}",
                     job.user.micro_batch_sequences, job.user.batch_sequences);
}

std::string step_budget_complaint(const UserJob& job) {
  if (job.user.step_budget == 0.0 || job.user.step_budget >= 1.0) return {};
  return fmt::format("found {}, expected 0, or at least 1: a step with one expert is 1",
                     job.user.step_budget);
}

const OptionInfo& row(const Table<UserJob>& table, std::string_view name) {
  const auto is_it = [&](const Option<UserJob>& option) { return option.info.name == name; };
  return std::find_if(table.options.begin(), table.options.end(), is_it)->info;
}

/// The jobs as the configuration's users see them.
std::vector<UserJob> jobs_of(const Config& config) {
  std::vector<UserJob> jobs;
  for (const User& user : config.users) jobs.push_back({.common = config, .user = user});
  return jobs;
}

bool is_said(const Layered& layered, std::string_view origin) {
  return std::ranges::any_of(layered.settings, [&](const Setting& s) { return s.origin == origin; });
}

/// A run brings its base model and its precision; a base alone has no users.
void add_choice_problems(const ModelChoice& choice, const Layered& layered, Problems& problems) {
  if (choice.run.empty() && choice.model.empty())
    problems.emplace_back(
        "found no run and no --model, expected the folder of a finished run, its results.h5, or a base "
        "model");
  if (choice.run.empty() && !choice.users.empty())
    problems.emplace_back("--users: found without a run, expected the run whose users are meant");
  if (!choice.run.empty() && is_said(layered, "--precision"))
    problems.emplace_back("--precision: found beside a run, which has its own; expected one of them");
}

}  // namespace

void throw_if_any(const std::vector<std::string>& problems) {
  if (problems.empty()) return;
  if (problems.size() == 1) throw ConfigError(problems.front());
  throw ConfigError(fmt::format("{} problems in the configuration:\n  - {}", problems.size(),
                                fmt::join(problems, "\n  - ")));
}

std::vector<std::string> validate(const Config& config, std::int64_t users) {
  if (users < 1) return {fmt::format("found {} users, expected at least 1", users)};
  if (config.users.size() != static_cast<std::size_t>(users)) {
    return {fmt::format("found a configuration of {} users, expected {}", config.users.size(), users)};
  }
  const Table<UserJob> table = job_table();
  const std::vector<UserJob> jobs = jobs_of(config);
  Problems problems = row_problems(table, jobs);
  check_users(row(table, "micro_batch_sequences"), jobs, micro_batch_complaint, problems);
  check_users(row(table, "step_budget"), jobs, step_budget_complaint, problems);
  return problems;
}

std::string data_folder(const Layered& layered) {
  return applied(job_table(), layered, all_users).common.data.folder;
}

double patience(const Layered& layered) {
  return applied(job_table(), layered, all_users).common.run.patience;
}

Config resolve(const Layered& layered, std::int64_t users) {
  const Table<UserJob> table = job_table();
  Config config;
  for (std::int64_t user = 0; user < users; ++user) {
    UserJob job = applied(table, layered, user);
    job.user.said = said_to(table, layered, user);
    job.common.users = std::move(config.users);
    job.common.users.push_back(job.user);
    config = std::move(job.common);
  }
  Problems problems = layered.problems;
  for (const Problems& more : {layer_problems(layered, users), validate(config, users)}) {
    problems.insert(problems.end(), more.begin(), more.end());
  }
  throw_if_any(problems);
  return config;
}

std::vector<std::string> validate(const Pretrain& pretrain) {
  Problems problems = row_problems(pretrain_table(), std::vector<Pretrain>{pretrain});
  if (pretrain.heads > 0 && pretrain.width % pretrain.heads != 0) {
    problems.push_back(fmt::format("[pretrain] width: found {}, expected a multiple of heads, which is {}",
                                   pretrain.width, pretrain.heads));
  }
  return problems;
}

Pretrain parse_pretrain(const std::vector<std::string>& arguments) {
  const Table<Pretrain> table = pretrain_table();
  const Layered layered = parse(Schema(table), arguments);
  const Pretrain pretrain = applied(table, layered, 0);
  Problems problems = layered.problems;
  const Problems more = validate(pretrain);
  problems.insert(problems.end(), more.begin(), more.end());
  throw_if_any(problems);
  return pretrain;
}

Prune parse_prune(const std::vector<std::string>& arguments) {
  const Table<Prune> table = prune_table();
  const Layered layered = parse_command_line(Schema(table), arguments);
  const Prune prune = applied(table, layered, 0);
  Problems problems = layered.problems;
  if (!layered.job_file.empty())
    problems.push_back(fmt::format("found '{}', expected options alone", printable(layered.job_file)));
  for (const auto& [flag, value] : {std::pair("--model", &prune.model), std::pair("--output", &prune.output)})
    if (value->empty()) problems.push_back(fmt::format("{}: not given, it is required", flag));
  if (prune.method != PruningMethod::magnitude && prune.data.empty())
    problems.push_back(fmt::format("--data: not given, expected a data set to calibrate on for --method {}",
                                   print(prune.method)));
  const bool share = is_said(layered, "--sparsity"), pattern = is_said(layered, "--pattern");
  if (share && pattern) problems.emplace_back("--sparsity: found beside --pattern, expected one of them");
  // What cannot be read is told of, not missed.
  if (!share && !pattern && layered.problems.empty())
    problems.emplace_back("--sparsity: not given, and no --pattern either, expected one of them");
  if (prune.context_tokens == 1)
    problems.emplace_back("--context-tokens: found '1', expected 0 or at least 2");
  throw_if_any(problems);
  return prune;
}

Evaluate parse_evaluate(const std::vector<std::string>& arguments) {
  const Table<Evaluate> table = evaluate_table();
  const Layered layered = parse_command_line(Schema(table), arguments);
  Evaluate evaluate = applied(table, layered, 0);
  evaluate.models.run = layered.job_file;
  Problems problems = layered.problems;
  add_choice_problems(evaluate.models, layered, problems);
  if (evaluate.tokens == 1)  // the first token is not predicted
    problems.emplace_back("--tokens: found '1', expected 0 or at least 2");
  if (evaluate.models.run.empty() && evaluate.data.empty())
    problems.emplace_back("--data: not given, expected a data set where there is no run");
  throw_if_any(problems);
  return evaluate;
}

Generate parse_generate(const std::vector<std::string>& arguments) {
  const Table<Generate> table = generate_table();
  const Layered layered = parse_command_line(Schema(table), arguments);
  Generate generate = applied(table, layered, 0);
  generate.models.run = layered.job_file;
  Problems problems = layered.problems;
  const Problems rows = row_problems(table, std::vector<Generate>{generate});
  problems.insert(problems.end(), rows.begin(), rows.end());
  add_choice_problems(generate.models, layered, problems);
  if (generate.with_base && generate.models.run.empty())
    problems.emplace_back("--with-base: found without a run, expected the run whose base is meant");
  for (const char* option : {"--sample-top-k", "--sample-top-p", "--seed"})
    if (generate.temperature == 0.0 && is_said(layered, option))
      problems.push_back(
          fmt::format("{}: found without --temperature, expected one above 0: nothing is drawn", option));
  throw_if_any(problems);
  return generate;
}

Route parse_route(const std::vector<std::string>& arguments) {
  const Table<Route> table = route_table();
  const Layered layered = parse_command_line(Schema(table), arguments);
  Route route = applied(table, layered, 0);
  route.run = layered.job_file;
  Problems problems = layered.problems;
  if (route.run.empty())
    problems.emplace_back("found no run, expected the folder of a finished one, or its results.h5");
  if (!route.probes.empty() && is_said(layered, "--tokens"))
    problems.emplace_back(
        "--tokens: found beside --probes, whose texts are taken whole; expected one of them");
  throw_if_any(problems);
  return route;
}

}  // namespace comigs::config
