// The folder that --output names.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comigs/io/folder_lock.hpp"

namespace comigs::run {

/// Local. Throws ConfigError, naming the option, where the folder cannot be made or what is there is none;
/// changes nothing. What only an attempt can tell is left to OutputFolder.
void check_output(const std::string& output);

/// Holds the folder of a command's results for this process, from before the first file is written to the
/// end; on one rank. A folder that it made and that is empty in the end is removed again.
class OutputFolder {
 public:
  /// Makes the folder and what is missing above it. Throws ConfigError where it cannot be a folder, cannot be
  /// written into or is another run's, IoError where the machine fails.
  explicit OutputFolder(const std::string& output);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  [[nodiscard]] const io::FolderLock& lock() const { return *lock_; }

 private:
  std::vector<std::filesystem::path> made_;  ///< the deepest last
  std::optional<io::FolderLock> lock_;
};

}  // namespace comigs::run
