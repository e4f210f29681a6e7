#include "comigs/model/end_of_text.hpp"

#include <nlohmann/json.hpp>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"

namespace comigs::model {

namespace {

// Nothing where the file does not speak of it.
std::optional<std::vector<std::int64_t>> named_in(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  const io::MappedFile content(file);
  const nlohmann::json config = io::parse_json(content.bytes(), file.string());
  const nlohmann::json value =
      config.is_object() ? config.value("eos_token_id", nlohmann::json()) : nlohmann::json();
  if (value.is_null()) return std::nullopt;
  std::vector<std::int64_t> tokens;
  for (const nlohmann::json& token : value.is_array() ? value : nlohmann::json::array({value})) {
    if (!token.is_number_unsigned())
      throw DataError(fmt::format("{}: 'eos_token_id' is {}, expected a token or a list of tokens",
                                  file.string(), printable(value.dump())));
    tokens.push_back(token.get<std::int64_t>());
  }
  return tokens;
}

}  // namespace

std::vector<std::int64_t> end_of_text(const std::filesystem::path& folder) {
  for (const char* name : {"generation_config.json", "config.json"})
    if (const auto tokens = named_in(folder / name)) return *tokens;
  return {};
}

}  // namespace comigs::model
