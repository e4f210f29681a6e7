// The errors that comigs throws, and the exit codes they end in.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace comigs {

/// What the process tells the shell or Slurm.
enum class ExitCode : int { done = 0, failed = 1, bad_input = 2, interrupted = 3 };

/// Base of all errors thrown on purpose; `exit_code` is what the run ends with where nobody handles it.
class Error : public std::runtime_error {
 public:
  Error(ExitCode exit_code, const std::string& message)
      : std::runtime_error(message), exit_code_(exit_code) {}
  [[nodiscard]] ExitCode exit_code() const noexcept { return exit_code_; }

 private:
  ExitCode exit_code_;
};

/// An option or a configuration file that cannot be: names the option, what was found, what was expected.
struct ConfigError : Error {
  explicit ConfigError(const std::string& message) : Error(ExitCode::bad_input, message) {}
};

/// A data set, model or tokeniser file that is missing, damaged or does not fit: names the file.
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(ExitCode::bad_input, message) {}
};

/// A value that is not finite where training needs one.
struct NumericError : Error {
  explicit NumericError(const std::string& message) : Error(ExitCode::failed, message) {}
};

/// Reading or writing failed for a reason outside the file's content (disk full, no permission).
struct IoError : Error {
  explicit IoError(const std::string& message) : Error(ExitCode::failed, message) {}
};

/// MPI or a device failed.
struct CommError : Error {
  explicit CommError(const std::string& message) : Error(ExitCode::failed, message) {}
};

/// The run was asked to stop where it can go on later. Without words: who asked knows.
struct Interrupted : Error {
  Interrupted() : Error(ExitCode::interrupted, "") {}
};

/// Another rank failed and has said why; this rank only leaves, with the same code.
struct PeerError : Error {
  explicit PeerError(ExitCode exit_code) : Error(exit_code, "another rank failed") {}
};

/// What an error says; those of libraries may carry pages of backtrace after their first line.
[[nodiscard]] inline std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace comigs
