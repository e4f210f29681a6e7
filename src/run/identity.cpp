#include "comigs/run/identity.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/base/version.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/io/json.hpp"

namespace comigs::run {

namespace {

void all_refuse(const comm::Communicator& world, const std::vector<std::string>& unlike) {
  comm::all_agree(world, [&] {
    if (!unlike.empty())
      throw ConfigError(
          fmt::format("not as on rank 0 ('there'): {}; programs and files must be the same on all "
                      "nodes",
                      fmt::join(unlike, "; ")));
  });
}

// Rank 0's, on every rank.
results::RunIdentity all_first(const comm::Communicator& world, const results::RunIdentity& own) {
  results::RunIdentity first{.configuration = world.all_broadcast(own.configuration),
                             .data_digest = world.all_broadcast(own.data_digest),
                             .base_digest = world.all_broadcast(own.base_digest),
                             .init_adapter_digest = world.all_broadcast(own.init_adapter_digest),
                             .base_architecture = world.all_broadcast(own.base_architecture),
                             .activations = world.all_broadcast(own.activations),
                             .sequences_at_a_time = own.sequences_at_a_time,  // gathered, so alike
                             .users = {}};
  // Of one number everywhere: that of the ranks decides it.
  for (const std::string& user : own.users) first.users.push_back(world.all_broadcast(user));
  return first;
}

nlohmann::json parsed(const std::string& architecture, const std::string& origin) {
  return io::parse_json(std::as_bytes(std::span(architecture)), origin + ": architecture of the base");
}

// The users who are on the same, rising: "users 0, 2".
std::string users_on(const std::vector<std::string>& on, const std::string& same) {
  std::vector<std::size_t> users;
  for (std::size_t user = 0; user < on.size(); ++user)
    if (on[user] == same) users.push_back(user);
  if (users.size() == on.size()) return "all users";
  return fmt::format("user{} {}", users.size() == 1 ? "" : "s", fmt::join(users, ", "));
}

}  // namespace

std::string this_build() { return fmt::format("comigs {} ({})", program_version, git_commit); }

config::Config configuration(const results::RunIdentity& identity, const std::string& origin) {
  return config::resolve(config::parse_recorded(identity.configuration, origin + ": configuration"),
                         static_cast<std::int64_t>(identity.users.size()));
}

void all_insist_alike(const comm::Communicator& world, const Facts& own) {
  std::vector<std::string> unlike;
  for (const auto& [what, found] : own)
    if (const std::string first = world.all_broadcast(found); first != found)
      unlike.push_back(fmt::format("{}: {} there, {} here", what, first, found));
  all_refuse(world, unlike);
}

void all_insist_on_one_run(const comm::Communicator& world, const results::RunIdentity& own) {
  all_insist_alike(world, {{"program", this_build()}});
  const results::RunIdentity first = all_first(world, own);
  all_refuse(world, comm::all_agree(
                        world, [&] { return differences(first, own, "rank 0", config::Between::ranks); }));
}

std::vector<std::string> differences(const results::RunIdentity& there, const results::RunIdentity& here,
                                     const std::string& origin, config::Between between) {
  std::vector<std::string> found;
  const config::Config own = configuration(here, "this run");
  if (there.users != here.users)
    found.push_back(fmt::format("users: {} there, {} here",
                                printable(fmt::format("{}", fmt::join(there.users, ", "))),
                                fmt::join(here.users, ", ")));
  if (there.users.size() == here.users.size())
    for (std::string& difference : config::differences(configuration(there, origin), own, between))
      found.push_back(std::move(difference));
  const auto compare = [&](const std::string& what, const std::string& old, const std::string& now) {
    constexpr std::size_t most = 24;
    if (old != now)
      found.push_back(fmt::format("{}: {} there, {} here", what,
                                  old.empty() ? "not recorded" : printable(old, most), printable(now, most)));
  };
  const auto digest = [](const std::string& text) {
    return text.empty() ? "none" : "digest " + text.substr(0, 12);
  };
  compare("manifest of the data set " + own.data.folder, digest(there.data_digest), digest(here.data_digest));
  compare("weights of the base model " + own.model.folder, digest(there.base_digest),
          digest(here.base_digest));
  compare("adapter that users begin as (--init-adapter)", digest(there.init_adapter_digest),
          digest(here.init_adapter_digest));
  for (const std::string& difference :
       architecture_differences(there.base_architecture, here.base_architecture, origin))
    found.push_back(fmt::format("{}/config.json: {}", own.model.folder, difference));
  compare("activations (--activations)", there.activations, here.activations);
  compare("sequences that users run at a time", there.sequences_at_a_time, here.sequences_at_a_time);
  return found;
}

std::vector<std::string> architecture_differences(const std::string& there, const std::string& here,
                                                  const std::string& origin) {
  if (there == here) return {};
  if (there.empty()) return {"not recorded there"};
  std::vector<std::string> found;
  const nlohmann::json old = parsed(there, origin), now = parsed(here, "this run");
  for (const nlohmann::json& change : nlohmann::json::diff(old, now)) {
    const nlohmann::json::json_pointer place(change.at("path").get<std::string>());
    const auto value = [&](const nlohmann::json& document) {
      return document.contains(place) ? printable(document.at(place).dump()) : std::string("nothing");
    };
    found.push_back(
        fmt::format("{}: {} there, {} here", printable(place.to_string().substr(1)), value(old), value(now)));
  }
  return found;
}

std::vector<std::string> moves(const results::RunIdentity& there, const results::RunIdentity& here,
                               const std::string& origin) {
  const config::Config old = configuration(there, origin), now = configuration(here, "this run");
  std::vector<std::string> found;
  const auto compare = [&](const std::string& before, const std::string& after) {
    if (before != after) found.push_back(fmt::format("{}, before {}", after, before));
  };
  compare(old.data.folder, now.data.folder);
  compare(old.model.folder, now.model.folder);
  compare(old.model.init_adapter, now.model.init_adapter);
  return found;
}

std::vector<std::string> computed_by(const std::vector<std::string>& libraries,
                                     const std::vector<std::string>& on) {
  std::vector<std::string> parts{this_build()};
  parts.insert(parts.end(), libraries.begin(), libraries.end());
  for (std::size_t user = 0; user < on.size(); ++user)
    if (std::find(on.begin(), on.end(), on[user]) == on.begin() + static_cast<std::ptrdiff_t>(user))
      parts.push_back(fmt::format("{} on {}", users_on(on, on[user]), on[user]));
  return parts;
}

std::string only_in(const std::vector<std::string>& list, const std::vector<std::string>& other) {
  std::vector<std::string> found;
  for (const std::string& part : list)
    if (std::ranges::find(other, part) == other.end()) found.push_back(part);
  return found.empty() ? "nothing else" : fmt::format("{}", fmt::join(found, ", "));
}

}  // namespace comigs::run
