// How one value of an option is read from text and printed, by its C++ type.
#pragma once

#include "comigs/base/printable.hpp"
#include "comigs/config/config.hpp"
#include "comigs/config/evaluate.hpp"
#include "comigs/config/prune.hpp"

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace comigs::config {

/// Numbers that an option accepts; by default all.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_excluded = false, high_excluded = false;

  [[nodiscard]] constexpr bool contains(double value) const {
    return (low_excluded ? value > low : value >= low) && (high_excluded ? value < high : value <= high);
  }
};

[[nodiscard]] constexpr Range at_least(double low) { return {.low = low}; }
[[nodiscard]] constexpr Range above(double low) { return {.low = low, .low_excluded = true}; }
[[nodiscard]] constexpr Range between(double low, double high) { return {.low = low, .high = high}; }
[[nodiscard]] constexpr Range from_to_below(double low, double high) {
  return {.low = low, .high = high, .high_excluded = true};
}

/// " from 1 to 64", " above 0", ..., or nothing.
[[nodiscard]] std::string range_words(const Range& range);

/// Reads the whole text; false, with `value` unchanged, where it is not one: trailing text, overflow, not
/// finite. Text may not hold '#', control characters or outer blanks, which an INI file could not give back.
[[nodiscard]] bool read(std::string_view text, std::int64_t& value);
/// Up to 2^63 - 1: results hold it as a signed number.
[[nodiscard]] bool read(std::string_view text, std::uint64_t& value);
[[nodiscard]] bool read(std::string_view text, double& value);
[[nodiscard]] bool read(std::string_view text, bool& value);
/// A number, or the word `auto`, which stands for nothing.
template <class Number>
[[nodiscard]] bool read(std::string_view text, std::optional<Number>& value) {
  Number found{};
  if (text != "auto" && !read(text, found)) return false;
  value = text == "auto" ? std::nullopt : std::optional(found);
  return true;
}
[[nodiscard]] bool read(std::string_view text, std::string& value);
/// Different integers from 0 to 63 joined by '+', kept in rising order; at least one.
[[nodiscard]] bool read(std::string_view text, std::vector<std::int64_t>& value);
/// A number from 0 to below 1.
[[nodiscard]] bool read(std::string_view text, ZeroShare& value);
/// "zeros=3,of=4", with at least one zero and fewer than all.
[[nodiscard]] bool read(std::string_view text, ZeroPattern& value);

/// The shortest text that `read` turns into the same value.
[[nodiscard]] std::string print(std::int64_t value);
[[nodiscard]] std::string print(std::uint64_t value);
[[nodiscard]] std::string print(double value);
template <class Number>
[[nodiscard]] std::string print(const std::optional<Number>& value) {
  return value ? print(*value) : "auto";
}
[[nodiscard]] std::string print(bool value);
[[nodiscard]] std::string print(const std::string& value);
[[nodiscard]] std::string print(const std::vector<std::int64_t>& value);
/// Of these two nothing, where nothing is said.
[[nodiscard]] std::string print(const ZeroShare& value);
[[nodiscard]] std::string print(const ZeroPattern& value);

/// The words that stand for the values of an enumeration.
template <class Enum>
inline constexpr std::array<std::pair<std::string_view, Enum>, 0> words{};
template <>
inline constexpr auto words<Precision> = std::to_array<std::pair<std::string_view, Precision>>(
    {{"float32", Precision::float32}, {"bf16", Precision::bf16}});
template <>
inline constexpr auto words<Activations> = std::to_array<std::pair<std::string_view, Activations>>(
    {{"auto", Activations::automatic}, {"float32", Activations::float32}, {"bf16", Activations::bf16}});
template <>
inline constexpr auto words<DeviceChoice> = std::to_array<std::pair<std::string_view, DeviceChoice>>(
    {{"auto", DeviceChoice::automatic}, {"cpu", DeviceChoice::cpu}, {"cuda", DeviceChoice::cuda}});
template <>
inline constexpr auto words<LoadBalancing> =
    std::to_array<std::pair<std::string_view, LoadBalancing>>({{"none", LoadBalancing::none},
                                                               {"uniform", LoadBalancing::uniform},
                                                               {"generalist", LoadBalancing::generalist}});

template <>
inline constexpr auto words<BalancingStrength> =
    std::to_array<std::pair<std::string_view, BalancingStrength>>(
        {{"paper", BalancingStrength::paper}, {"published", BalancingStrength::published}});
template <>
inline constexpr auto words<AttentionSharing> = std::to_array<std::pair<std::string_view, AttentionSharing>>(
    {{"method", AttentionSharing::method}, {"own", AttentionSharing::own}});
template <>
inline constexpr auto words<Mixing> = std::to_array<std::pair<std::string_view, Mixing>>(
    {{"every-round", Mixing::every_round}, {"renewals", Mixing::renewals}});
template <>
inline constexpr auto words<Resume> = std::to_array<std::pair<std::string_view, Resume>>(
    {{"never", Resume::never}, {"auto", Resume::automatic}});
template <>
inline constexpr auto words<OnUserFailure> = std::to_array<std::pair<std::string_view, OnUserFailure>>(
    {{"stop", OnUserFailure::stop}, {"continue", OnUserFailure::go_on}});
template <>
inline constexpr auto words<TrainOn> = std::to_array<std::pair<std::string_view, TrainOn>>(
    {{"train", TrainOn::train}, {"train+validation", TrainOn::train_and_validation}});
template <>
inline constexpr auto words<GateTargets> = std::to_array<std::pair<std::string_view, GateTargets>>(
    {{"categories", GateTargets::categories}, {"clusters", GateTargets::clusters}});
template <>
inline constexpr auto words<Averaging> = std::to_array<std::pair<std::string_view, Averaging>>(
    {{"uniform", Averaging::uniform}, {"tokens", Averaging::tokens}, {"examples", Averaging::examples}});

template <>
inline constexpr auto words<Split> = std::to_array<std::pair<std::string_view, Split>>(
    {{"train", Split::train}, {"validation", Split::validation}, {"test", Split::test}});
template <>
inline constexpr auto words<PruningMethod> =
    std::to_array<std::pair<std::string_view, PruningMethod>>({{"magnitude", PruningMethod::magnitude},
                                                               {"wanda", PruningMethod::wanda},
                                                               {"sparsegpt", PruningMethod::sparsegpt}});

template <class Enum>
requires std::is_enum_v<Enum>
[[nodiscard]] bool read(std::string_view text, Enum& value) {
  for (const auto& [word, meaning] : words<Enum>) {
    if (word == text) {
      value = meaning;
      return true;
    }
  }
  return false;
}

template <class Enum>
requires std::is_enum_v<Enum>
[[nodiscard]] std::string print(Enum value) {
  for (const auto& [word, meaning] : words<Enum>) {
    if (meaning == value) return std::string(word);
  }
  return "unknown";
}

/// What a reader of an error message or a help text should put there: "an integer", "auto, cpu or cuda".
template <class Value>
[[nodiscard]] std::string type_words() {
  if constexpr (std::is_enum_v<Value>) {
    std::string list;
    for (std::size_t i = 0; i < words<Value>.size(); ++i) {
      if (i > 0) list += i + 1 == words<Value>.size() ? " or " : ", ";
      list += words<Value>[i].first;
    }
    return list;
  } else if constexpr (std::is_same_v<Value, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<Value, std::string>) {
    return "text without '#', control characters or outer blanks";
  } else if constexpr (std::is_same_v<Value, std::optional<double>>) {
    return "auto or a number";
  } else if constexpr (std::is_same_v<Value, std::optional<std::int64_t>>) {
    return "auto or an integer";
  } else if constexpr (std::is_same_v<Value, std::vector<std::int64_t>>) {
    return "different integers from 0 to 63 joined by '+'";
  } else if constexpr (std::is_same_v<Value, ZeroShare>) {
    return "a number from 0 to below 1";
  } else if constexpr (std::is_same_v<Value, ZeroPattern>) {
    return "zeros=N,of=M with N from 1 to below M, M at most 4096";
  } else {
    return std::is_floating_point_v<Value> ? "a number"
           : std::is_unsigned_v<Value>     ? "an integer from 0 to 2^63 - 1"
                                           : "an integer";
  }
}

}  // namespace comigs::config
