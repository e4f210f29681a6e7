#include "comigs/config/value.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace comigs::config {
namespace {

template <class Number>
bool read_number(std::string_view text, Number& value) {
  Number found{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), found);
  if (error != std::errc{} || end != text.data() + text.size()) return false;
  value = found;
  return true;
}

template <class Number>
std::string print_number(Number value) {
  std::array<char, 32> digits{};
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  return {digits.data(), end};
}

bool is_control(char c) { return c == 0x7f || static_cast<unsigned char>(c) < 0x20; }

/// A bound as a person writes it: 1000000 rather than 1e+06.
std::string bound_words(double bound) {
  const bool integer = std::floor(bound) == bound && std::abs(bound) < 1e15;
  return integer ? print(static_cast<std::int64_t>(bound)) : print(bound);
}

}  // namespace

std::string range_words(const Range& range) {
  if (std::isinf(range.low)) return {};
  const std::string low = bound_words(range.low);
  if (std::isinf(range.high)) return fmt::format(" {} {}", range.low_excluded ? "above" : "of at least", low);
  if (range.low_excluded) return fmt::format(" above {} and at most {}", low, bound_words(range.high));
  return fmt::format(" from {} to {}{}", low, range.high_excluded ? "below " : "", bound_words(range.high));
}

bool read(std::string_view text, std::int64_t& value) { return read_number(text, value); }

bool read(std::string_view text, std::uint64_t& value) {
  std::int64_t found = 0;
  if (!read_number(text, found) || found < 0) return false;
  value = static_cast<std::uint64_t>(found);
  return true;
}

bool read(std::string_view text, double& value) {
  double found = 0.0;
  if (!read_number(text, found) || !std::isfinite(found)) return false;
  value = found;
  return true;
}

bool read(std::string_view text, bool& value) {
  if (text != "true" && text != "false") return false;
  value = text == "true";
  return true;
}

bool read(std::string_view text, std::string& value) {
  const auto unwritable = [](char c) { return c == '#' || is_control(c); };
  if (std::any_of(text.begin(), text.end(), unwritable)) return false;
  if (!text.empty() && (text.front() == ' ' || text.back() == ' ')) return false;
  value = text;
  return true;
}

bool read(std::string_view text, std::vector<std::int64_t>& value) {
  std::vector<std::int64_t> found;
  for (std::size_t end = 0; end != text.npos;) {
    end = text.find('+');
    std::int64_t number = -1;
    if (!read(text.substr(0, end), number) || number < 0 || number > 63) return false;
    found.push_back(number);
    if (end != text.npos) text.remove_prefix(end + 1);
  }
  std::sort(found.begin(), found.end());
  if (std::adjacent_find(found.begin(), found.end()) != found.end()) return false;
  value = std::move(found);
  return true;
}

bool read(std::string_view text, ZeroShare& value) {
  double share = 0.0;
  if (!read(text, share) || !from_to_below(0, 1).contains(share)) return false;
  value.share = share;
  return true;
}

bool read(std::string_view text, ZeroPattern& value) {
  constexpr std::string_view zeros = "zeros=", of = ",of=";
  const std::size_t comma = text.find(of);
  ZeroPattern found;
  if (!text.starts_with(zeros) || comma == text.npos ||
      !read(text.substr(zeros.size(), comma - zeros.size()), found.zeros) ||
      !read(text.substr(comma + of.size()), found.of))
    return false;
  if (found.zeros < 1 || found.zeros >= found.of || found.of > ZeroPattern::longest) return false;
  value = found;
  return true;
}

std::string print(std::int64_t value) { return print_number(value); }

std::string print(std::uint64_t value) { return print_number(value); }

std::string print(double value) { return print_number(value); }

std::string print(bool value) { return value ? "true" : "false"; }

std::string print(const std::string& value) { return value; }

std::string print(const ZeroShare& value) { return value.share ? print(*value.share) : ""; }

std::string print(const ZeroPattern& value) {
  return value.is_said() ? fmt::format("zeros={},of={}", value.zeros, value.of) : "";
}

std::string print(const std::vector<std::int64_t>& value) { return fmt::format("{}", fmt::join(value, "+")); }

}  // namespace comigs::config
