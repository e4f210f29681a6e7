// What a person sees while a run goes on: log lines on standard error, a progress bar where that is a
// terminal.
#pragma once

#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace comigs {

/// Sets the process's log up: warnings and errors from every rank (`tag` names it), information from the
/// first only.
void start_log(const std::string& tag, bool first);

/// "1 h 02 min", "3 min 05 s", "12.3 s".
std::string format_duration(double seconds);
/// "512.0 KiB", "1.25 GiB".
[[nodiscard]] std::string format_bytes(std::int64_t bytes);

/// A bar with the share done and the time left, redrawn in place on the terminal that the process was started
/// from. Nothing is drawn where `enabled` is false or there is no terminal (batch jobs, CI). Under mpirun
/// standard error is a pipe and standard output a pseudo-terminal even where mpirun's own is a file, so the
/// controlling terminal is asked for instead.
class ProgressBar {
 public:
  ProgressBar(std::int64_t total, bool enabled);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void advance(std::int64_t amount, const std::string& note);
  /// Takes the bar off the screen, so that a line can be printed; the next `advance` draws it again.
  void clear();

 private:
  void draw(const std::string& note);

  std::int64_t total_;
  std::int64_t done_ = 0, first_ = 0;  // first_: done when the time left was first reckoned from
  std::FILE* terminal_ = nullptr;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_draw_;
};

/// Seconds since construction or the last `lap`.
class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  double lap() {
    const double elapsed = seconds();
    start_ = std::chrono::steady_clock::now();
    return elapsed;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Adds the seconds of its life to a total.
class SecondsInto {
 public:
  explicit SecondsInto(double& total) : total_(total) {}
  ~SecondsInto() { total_ += watch_.seconds(); }
  SecondsInto(const SecondsInto&) = delete;
  SecondsInto& operator=(const SecondsInto&) = delete;

 private:
  double& total_;
  Stopwatch watch_;
};

}  // namespace comigs
