#include "comigs/comm/launch.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>

namespace comigs::comm {

namespace {

namespace fs = std::filesystem;

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

bool is_set(const char* name) { return std::getenv(name) != nullptr; }

std::string content(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The value of a variable in the text of /proc/PID/environ; empty: it has none.
std::string value_in(std::string_view environment, std::string_view name) {
  while (!environment.empty()) {
    const std::string_view entry = environment.substr(0, environment.find('\0'));
    if (entry.starts_with(name) && entry.substr(name.size()).starts_with('='))
      return std::string(entry.substr(name.size() + 1));
    environment.remove_prefix(std::min(entry.size() + 1, environment.size()));
  }
  return {};
}

// What /proc/PID/stat says after the process's name, which may hold anything and stands in brackets.
struct Stat {
  char state = 'R';
  std::uint64_t ticks = 0;  // of user and system time
};

Stat stat_of(const fs::path& process) {
  constexpr int fields_before_times = 11;  // the state among them
  const std::string text = content(process / "stat");
  const std::size_t place = text.rfind(") ");
  if (place == std::string::npos) return {};
  std::istringstream fields(text.substr(place + 2));
  Stat found;
  fields >> found.state;
  std::string ignored;
  for (int i = 1; i < fields_before_times; ++i) fields >> ignored;
  std::uint64_t user = 0, system = 0;
  fields >> user >> system;
  found.ticks = user + system;
  return found;
}

// Others that a rank has started, a shell or an editor, have its variables too.
bool runs_this_program(const fs::path& process) {
  std::error_code error;
  return fs::read_symlink(process / "exe", error) == fs::read_symlink("/proc/self/exe", error);
}

}  // namespace

Launch launched() {
  // mpirun inside a step of Slurm's speaks last.
  if (is_set("OMPI_COMM_WORLD_SIZE"))
    return {.ranks = number("OMPI_COMM_WORLD_SIZE", 1),
            .rank = number("OMPI_COMM_WORLD_RANK", 0),
            .by_mpirun = true,
            .has_pmi = true};
  return {.ranks = number("SLURM_STEP_NUM_TASKS", 1),
          .rank = number("SLURM_PROCID", 0),
          .has_pmi = is_set("PMIX_RANK") || is_set("PMI_RANK")};
}

std::map<int, std::uint64_t> ranks_in_state(std::string_view states) {
  const char* run = std::getenv("PMIX_NAMESPACE");
  if (run == nullptr) return {};
  std::map<int, std::uint64_t> ranks;
  std::error_code error;
  for (const fs::directory_entry& process : fs::directory_iterator("/proc", error)) {
    const std::string name = process.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const Stat stat = stat_of(process.path());
    if (states.find(stat.state) == std::string_view::npos || !runs_this_program(process.path())) continue;
    const std::string environment = content(process.path() / "environ");
    const std::string rank = value_in(environment, "PMIX_RANK");
    if (value_in(environment, "PMIX_NAMESPACE") == run && !rank.empty())
      ranks[std::atoi(rank.c_str())] = stat.ticks;
  }
  return ranks;
}

}  // namespace comigs::comm
