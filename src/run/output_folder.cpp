#include "comigs/run/output_folder.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/base/system_reason.hpp"
#include "comigs/io/removal.hpp"

namespace comigs::run {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& output, const std::string& found) {
  throw ConfigError(
      fmt::format("--output {}: {}, expected a folder or a place for one", printable(output, 200), found));
}

[[noreturn]] void refuse_by(const std::string& output, int reason) {
  if (is_about_path(reason)) refuse(output, std::strerror(reason));
  throw IoError(
      fmt::format("cannot make the folder '{}': {}", printable(output, 200), std::strerror(reason)));
}

// The folders to be made, the outermost first. Throws ConfigError where something else is in the way.
std::vector<fs::path> missing(const std::string& output) {
  if (output.empty()) refuse(output, "no name");
  if (printable(output, output.size()) != output) refuse(output, "a name with control characters");
  std::vector<fs::path> found;
  // A folder is named without the slash that may end its name.
  fs::path place = fs::path(output).has_filename() ? fs::path(output) : fs::path(output).parent_path();
  for (; !place.empty(); place = place.has_parent_path() ? place.parent_path() : fs::path()) {
    std::error_code failed;
    const fs::file_status status = fs::status(place, failed);
    if (fs::is_directory(status)) break;
    std::error_code none;
    if (fs::exists(status)) refuse(output, fmt::format("'{}' is a file", place.string()));
    if (failed && failed.value() != ENOENT && failed.value() != ENOTDIR) refuse_by(output, failed.value());
    if (fs::is_symlink(fs::symlink_status(place, none)))
      refuse(output, fmt::format("'{}' is a link to nothing", place.string()));
    found.push_back(place);
    if (place == place.root_path()) break;
  }
  std::ranges::reverse(found);
  return found;
}

}  // namespace

void check_output(const std::string& output) { (void)missing(output); }

OutputFolder::OutputFolder(const std::string& output) {
  try {
    for (const fs::path& folder : missing(output)) {
      std::error_code failed;
      // Another run may make it in the same moment.
      if (fs::create_directory(folder, failed)) made_.push_back(folder);
      if (failed) refuse_by(output, failed.value());
    }
    if (::access(output.c_str(), W_OK | X_OK) != 0) refuse_by(output, errno);
    lock_.emplace(output);
  } catch (...) {
    for (; !made_.empty(); made_.pop_back()) io::remove_empty(made_.back());
    throw;
  }
}

OutputFolder::~OutputFolder() {
  lock_.reset();
  for (; !made_.empty(); made_.pop_back()) io::remove_empty(made_.back());
}

}  // namespace comigs::run
