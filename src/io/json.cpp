#include "comigs/io/json.hpp"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"

namespace comigs::io {

namespace {

using Json = nlohmann::json;

constexpr int most_levels = 64;
constexpr std::size_t most_reason_bytes = 200;

// Follows the parser: refuses what is nested too deep, and keys that come twice, of which the finished
// document shows one alone.
class ParseGuard {
 public:
  explicit ParseGuard(const std::string& file_name) : file_name_(file_name) {}

  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    if (depth >= most_levels)
      throw DataError(fmt::format("{}: nested more than {} levels deep", file_name_, most_levels));
    if (event == Json::parse_event_t::object_start) keys(depth + 1) = {};
    if (event == Json::parse_event_t::key) add(keys(depth), parsed.get_ref<const std::string&>());
    return true;
  }

 private:
  using Keys = std::unordered_set<std::string>;

  Keys& keys(int depth) {
    const auto level = static_cast<std::size_t>(depth);
    if (keys_.size() <= level) keys_.resize(level + 1);
    return keys_[level];
  }
  void add(Keys& keys, const std::string& key) const {
    if (!keys.insert(key).second)
      throw DataError(fmt::format("{}: an object has '{}' twice", file_name_, printable(key)));
  }

  const std::string& file_name_;
  std::vector<Keys> keys_;  // by depth
};

// "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ..." -> "syntax ..."
std::string reason_of(const std::exception& error) {
  std::string_view reason = error.what();
  for (const std::string_view introduction : {"] ", ": "})
    if (const auto end = reason.find(introduction); end != reason.npos)
      reason.remove_prefix(end + introduction.size());
  return printable(reason, most_reason_bytes);
}

// Of the byte, counted from 1.
std::string place_of(std::size_t byte, std::string_view text) {
  const std::string_view before = text.substr(0, byte == 0 ? 0 : byte - 1);
  return fmt::format("line {}, byte {}", 1 + std::count(before.begin(), before.end(), '\n'), byte);
}

void require_utf8(std::string_view text, const std::string& file_name) {
  const auto refuse = [&](const std::string& found) {
    throw DataError(fmt::format("{}: not valid JSON: {}, expected UTF-8 without it", file_name, found));
  };
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    refuse("it begins with the byte order mark of UTF-16");
  if (text.starts_with("\xEF\xBB\xBF")) refuse("it begins with a byte order mark");
  // Which the parser takes for the end.
  if (const auto nul = text.find('\0'); nul != text.npos)
    refuse(place_of(nul + 1, text) + ": a byte that is zero");
}

}  // namespace

Json parse_json(std::span<const std::byte> content, const std::string& file_name, std::size_t most_bytes) {
  if (content.size() > most_bytes)
    throw DataError(fmt::format("{}: {} bytes, expected at most {}", file_name, content.size(), most_bytes));
  const std::string_view text(reinterpret_cast<const char*>(content.data()), content.size());
  require_utf8(text, file_name);
  ParseGuard guard(file_name);
  try {
    return Json::parse(text, std::ref(guard));
  } catch (const Json::parse_error& error) {
    throw DataError(
        fmt::format("{}: not valid JSON: {}: {}", file_name, place_of(error.byte, text), reason_of(error)));
  } catch (const Json::exception& error) {
    throw DataError(fmt::format("{}: not valid JSON: {}", file_name, reason_of(error)));
  }
}

}  // namespace comigs::io
