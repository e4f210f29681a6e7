// From settings to the one Config that a run goes by.
#pragma once

#include "comigs/config/config.hpp"
#include "comigs/config/parse.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace comigs::config {

/// Defaults, then `layered`, for so many users. Throws ConfigError with ALL problems: one on a line of its
/// own, several as a list; those that parsing found, lists that are not one value a user, [user.7] of four
/// users, those of `validate`.
[[nodiscard]] Config resolve(const Layered& layered, std::int64_t users);

/// The data-set folder alone, which says how many users there are; empty where it is not given.
[[nodiscard]] std::string data_folder(const Layered& layered);
/// [run] patience alone, which ranks need before they can speak of the rest.
[[nodiscard]] double patience(const Layered& layered);

/// All problems of a configuration however it was made; empty: none. Method names are not looked at:
/// federation owns them.
[[nodiscard]] std::vector<std::string> validate(const Config& config, std::int64_t users);

}  // namespace comigs::config
