// Rows of the tables of commands on models that there are already: which models, and where they are computed.
#pragma once

#include "comigs/config/option.hpp"

namespace comigs::config {

/// `Group` leads to the record's ModelChoice.
template <class Group>
struct ModelChoiceRows {
  Group group;

  [[nodiscard]] constexpr auto model() const {
    return group.template option<&ModelChoice::model>(
        "model", "FOLDER", "base model; with a run: where it is not in its recorded place");
  }
  [[nodiscard]] constexpr auto users() const {
    return group.template option<&ModelChoice::users>(
        "users", "NAMES", "whose models, joined by commas; unsaid: every user's of the run");
  }
  [[nodiscard]] constexpr auto precision() const {
    return group.template option<&ModelChoice::precision>(
        "precision", "TYPE", "frozen weights of a base without a run, which has its own");
  }
  [[nodiscard]] constexpr auto device() const {
    return group.template option<&ModelChoice::device>("device", "DEVICE", "where to compute", {},
                                                       {.determines_numbers = false});
  }
  [[nodiscard]] constexpr auto threads() const {
    return group.template option<&ModelChoice::threads>(
        "threads", "N", "compute threads; 0: the cores it may use", {.low = 0, .high = 4096},
        {.determines_numbers = false});
  }
};

}  // namespace comigs::config
