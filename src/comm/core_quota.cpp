// Control groups limit how much processor time a container's processes get without taking cores away from
// them.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "comigs/comm/placement.hpp"

namespace comigs::comm {

namespace {

namespace fs = std::filesystem;

// Quota over period; nothing where there is no limit.
std::optional<double> ratio(const std::string& quota, double period) {
  try {
    const double microseconds = std::stod(quota);
    if (microseconds > 0.0 && period > 0.0) return microseconds / period;
  } catch (const std::exception&) {
    // "max": no limit
  }
  return std::nullopt;
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

// Where a line of /proc/self/cgroup ("0::/path", "4:cpu,cpuacct:/path") says the process's limits on time
// are.
std::optional<fs::path> folder_of(const std::string& line, const fs::path& mounted) {
  std::istringstream fields(line);
  std::string number, controllers, path;
  std::getline(fields, number, ':');
  std::getline(fields, controllers, ':');
  std::getline(fields, path);
  const fs::path relative = fs::path(path).relative_path();
  if (number == "0" && controllers.empty()) return mounted / relative;
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');)
    if (name == "cpu") return mounted / controllers / relative;
  return std::nullopt;
}

}  // namespace

std::optional<double> quota_of_cores(const fs::path& groups, const fs::path& mounted) {
  std::optional<double> least;
  std::ifstream file(groups);
  for (std::string line; std::getline(file, line);) {
    std::optional<fs::path> folder = folder_of(line, mounted);
    // A group's limit holds for all groups inside it.
    while (folder) {
      if (const std::optional<double> quota = quota_in(*folder))
        least = std::min(least.value_or(*quota), *quota);
      if (*folder == mounted || !folder->has_relative_path()) break;
      folder = folder->parent_path();
    }
  }
  return least;
}

}  // namespace comigs::comm
