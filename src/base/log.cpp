#include "comigs/base/log.hpp"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <algorithm>
#include <cmath>
#include <cstdio>

namespace comigs {

namespace {

// A terminal that is gone stops no work.
void show(std::FILE* terminal, const std::string& text) {
  std::fputs(text.c_str(), terminal);
  std::fflush(terminal);
}

}  // namespace

void start_log(const std::string& tag, bool first) {
  auto logger = spdlog::stderr_color_mt("comigs");
  logger->set_pattern(first ? "%^comigs:%$ %v" : fmt::format("%^comigs {}:%$ %v", tag));
  logger->set_level(first ? spdlog::level::info : spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string format_bytes(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 0x1p30) return fmt::format("{:.2f} GiB", value / 0x1p30);
  if (value >= 0x1p20) return fmt::format("{:.1f} MiB", value / 0x1p20);
  return fmt::format("{:.1f} KiB", value / 0x1p10);
}

ProgressBar::ProgressBar(std::int64_t total, bool enabled)
    : total_(std::max<std::int64_t>(total, 1)),
      terminal_(enabled ? std::fopen("/dev/tty", "w") : nullptr),
      start_(std::chrono::steady_clock::now()),
      last_draw_(start_ - std::chrono::hours(1)) {}

ProgressBar::~ProgressBar() {
  clear();
  if (terminal_ != nullptr) std::fclose(terminal_);
}

void ProgressBar::advance(std::int64_t amount, const std::string& note) {
  done_ = std::min(done_ + amount, total_);
  if (first_ == 0) {  // the time before it went into more than steps
    first_ = done_;
    start_ = std::chrono::steady_clock::now();
  }
  if (terminal_ == nullptr) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_draw_ < std::chrono::milliseconds(150)) return;
  last_draw_ = now;
  draw(note);
}

void ProgressBar::draw(const std::string& note) {
  constexpr int width = 32;
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const double elapsed = std::chrono::duration<double>(last_draw_ - start_).count();
  const auto since = static_cast<double>(done_ - first_), to_come = static_cast<double>(total_ - done_);
  const std::string left = since > 0.0 ? format_duration(elapsed * to_come / since) : "?";
  std::string bar;
  for (int i = 0; i < width; ++i) bar += i < static_cast<int>(share * width) ? "━" : "─";
  show(terminal_, fmt::format("\r\x1b[K{} {:3.0f} %  {} left  {}", bar, 100.0 * share, left, note));
  drawn_ = true;
}

void ProgressBar::clear() {
  if (!drawn_) return;
  show(terminal_, "\r\x1b[K");
  drawn_ = false;
  // The line that comes now takes a moment through mpirun: the next bar must not overtake it.
  last_draw_ = std::chrono::steady_clock::now();
}

}  // namespace comigs
