// JSON as the commands print it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace comigs::app {

/// Names of files may be no UTF-8: what is none of it is shown replaced.
[[nodiscard]] inline std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace comigs::app
