// Control groups limit the processor time and the memory that a container's or a job's processes get; the
// machine shows them all of its own.
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>

#include "comigs/comm/placement.hpp"

namespace comigs::comm {

namespace {

namespace fs = std::filesystem;

// Nothing where there is no limit.
std::optional<double> positive(const std::string& limit) {
  try {
    if (const double amount = std::stod(limit); amount > 0.0) return amount;
  } catch (const std::exception&) {
    // "max": no limit
  }
  return std::nullopt;
}

std::optional<double> ratio(const std::string& quota, double period) {
  const std::optional<double> amount = positive(quota);
  return amount && period > 0.0 ? std::optional(*amount / period) : std::nullopt;
}

// Version 2 has both numbers in one file, version 1 has two files.
std::optional<double> quota_in(const fs::path& folder) {
  std::string quota;
  double period = 0.0;
  if (std::ifstream file(folder / "cpu.max"); file >> quota >> period) return ratio(quota, period);
  std::ifstream quota_file(folder / "cpu.cfs_quota_us"), period_file(folder / "cpu.cfs_period_us");
  if (quota_file >> quota && period_file >> period) return ratio(quota, period);
  return std::nullopt;
}

std::optional<double> memory_in(const fs::path& folder) {
  for (const char* name : {"memory.max", "memory.limit_in_bytes"})
    if (std::string limit; std::ifstream(folder / name) >> limit) return positive(limit);
  return std::nullopt;
}

// Where a line of /proc/self/cgroup ("0::/path", "4:cpu,cpuacct:/path") says the process's limits of a
// controller are.
std::optional<fs::path> folder_of(const std::string& line, const std::string& controller,
                                  const fs::path& mounted) {
  std::istringstream fields(line);
  std::string number, controllers, path;
  std::getline(fields, number, ':');
  std::getline(fields, controllers, ':');
  std::getline(fields, path);
  const fs::path relative = fs::path(path).relative_path();
  if (number == "0" && controllers.empty()) return mounted / relative;
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');)
    if (name == controller) return mounted / controllers / relative;
  return std::nullopt;
}

using Reader = std::function<std::optional<double>(const fs::path& folder)>;

std::optional<double> least_limit(const ControlGroups& where, const std::string& controller,
                                  const Reader& read) {
  std::optional<double> least;
  std::ifstream file(where.groups);
  for (std::string line; std::getline(file, line);) {
    std::optional<fs::path> folder = folder_of(line, controller, where.mounted);
    // A group's limit holds for all groups inside it.
    while (folder) {
      if (const std::optional<double> limit = read(*folder)) least = std::min(least.value_or(*limit), *limit);
      if (*folder == where.mounted || !folder->has_relative_path()) break;
      folder = folder->parent_path();
    }
  }
  return least;
}

}  // namespace

std::optional<double> quota_of_cores(const ControlGroups& where) {
  return least_limit(where, "cpu", &quota_in);
}

std::int64_t memory_bytes(const ControlGroups& where) {
  const double there =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  return static_cast<std::int64_t>(std::min(there, least_limit(where, "memory", &memory_in).value_or(there)));
}

}  // namespace comigs::comm
