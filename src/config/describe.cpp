#include "comigs/config/describe.hpp"

#include "schema.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace comigs::config {
namespace {

template <class Record>
std::string line(const Option<Record>& option, const Record& record) {
  const std::string value = option.print(record);
  return fmt::format("{} ={}{}\n", option.info.name, value.empty() ? "" : " ", value);
}

void add_section(std::string& text, const std::string& name, const std::string& lines) {
  if (!lines.empty()) text += fmt::format("{}[{}]\n{}", text.empty() ? "" : "\n", name, lines);
}

/// The options of one section that `shown` picks, of one record.
template <class Record, class Shown>
std::string lines_of(const Table<Record>& table, std::string_view section, const Record& record,
                     const Shown& shown) {
  std::string lines;
  for (const Option<Record>& option : table.options) {
    if (option.info.section == section && shown(option)) lines += line(option, record);
  }
  return lines;
}

/// `records`: one a user, at least one.
template <class Record>
std::string echo_table(const Table<Record>& table, const std::vector<Record>& records) {
  const auto alike = [&](const Option<Record>& option) {
    const auto same = [&](const Record& record) {
      return option.print(record) == option.print(records.front());
    };
    return std::all_of(records.begin(), records.end(), same);
  };
  const auto unlike = [&](const Option<Record>& option) { return !alike(option); };
  std::string text;
  for (const Section& section : table.sections) {
    add_section(text, std::string(section.name), lines_of(table, section.name, records.front(), alike));
    if (section.name != table.per_user) continue;
    for (std::size_t user = 0; user < records.size(); ++user) {
      add_section(text, fmt::format("{}.{}", section.name, user),
                  lines_of(table, section.name, records[user], unlike));
    }
  }
  return text;
}

std::vector<UserJob> jobs_of(const Config& config) {
  std::vector<UserJob> jobs;
  for (const User& user : config.users) jobs.push_back({.common = config, .user = user});
  if (jobs.empty()) jobs.push_back({.common = config, .user = {}});
  return jobs;
}

}  // namespace

std::string echo(const Config& config) { return echo_table(job_table(), jobs_of(config)); }

std::string echo(const Pretrain& pretrain) {
  return echo_table(pretrain_table(), std::vector<Pretrain>{pretrain});
}

std::vector<OptionValue> values(const Config& config, std::size_t user) {
  const UserJob job = jobs_of(config).at(user);
  const Table<UserJob> table = job_table();
  std::vector<OptionValue> found;
  for (const Option<UserJob>& option : table.options) {
    const OptionInfo& info = option.info;
    found.push_back({.section = info.section,
                     .name = info.name,
                     .text = option.print(job),
                     .is_of_user = info.section == table.per_user,
                     .is_flag = info.is_flag,
                     .is_number = info.is_number});
  }
  return found;
}

std::vector<std::pair<std::string, std::string>> settings(const Layered& layered) {
  throw_if_any(layered.problems);
  std::vector<std::pair<std::string, std::string>> said;
  for (const Setting& setting : layered.settings) {
    const OptionInfo& option = job_table().options[setting.option].info;
    const std::string name = respelled(option.flag(), '-', '_'),
                      own = fmt::format("{}.{}.{}", option.section, setting.user, name);
    // What is said of all users goes above what was said of one before.
    std::erase_if(said, [&](const auto& earlier) {
      const std::string_view of_one = earlier.first;
      return of_one == (setting.user == all_users ? name : own) ||
             (setting.user == all_users && of_one.starts_with(fmt::format("{}.", option.section)) &&
              of_one.ends_with(fmt::format(".{}", name)));
    });
    said.emplace_back(setting.user == all_users ? name : own,
                      fmt::format("{}", fmt::join(setting.values, ",")));
  }
  return said;
}

std::vector<std::string> differences(const Config& there, const Config& here, Between between) {
  if (there.users.size() != here.users.size())
    return {fmt::format("users: {} there, {} here", there.users.size(), here.users.size())};
  const std::vector<UserJob> old_jobs = jobs_of(there), new_jobs = jobs_of(here);
  std::vector<std::string> found;
  for (const Option<UserJob>& option : job_table().options) {
    const Extra& extra = option.info.extra;
    if (between == Between::runs ? !extra.determines_numbers : extra.is_of_rank) continue;
    for (std::size_t user = 0; user < new_jobs.size(); ++user) {
      const std::string old_value = option.print(old_jobs[user]), new_value = option.print(new_jobs[user]);
      if (old_value == new_value) continue;
      const bool by_user = option.info.section == job_table().per_user;
      found.push_back(fmt::format("[{}{}] {}: {} there, {} here", option.info.section,
                                  by_user ? fmt::format(".{}", user) : "", option.info.name, old_value,
                                  new_value));
      if (!by_user) break;
    }
  }
  return found;
}

}  // namespace comigs::config
