#include "comigs/io/json.hpp"

#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"

namespace comigs::io {

namespace {

constexpr int most_levels = 64;

}  // namespace

nlohmann::json parse_json(std::span<const std::byte> content, const std::string& file_name,
                          std::size_t most_bytes) {
  using Event = nlohmann::json::parse_event_t;
  if (content.size() > most_bytes)
    throw DataError(fmt::format("{}: {} bytes, expected at most {}", file_name, content.size(), most_bytes));
  const auto guard = [&](int depth, Event, const nlohmann::json&) {
    if (depth >= most_levels)
      throw DataError(fmt::format("{}: nested more than {} levels deep", file_name, most_levels));
    return true;
  };
  const auto* const text = reinterpret_cast<const char*>(content.data());
  try {
    return nlohmann::json::parse(text, text + content.size(), guard);
  } catch (const nlohmann::json::exception&) {
    throw DataError(fmt::format("{}: not valid JSON", file_name));
  }
}

}  // namespace comigs::io
