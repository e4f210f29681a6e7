// Whether two tokenizer.json files make the same tokens of a text, however they are written.
#include <algorithm>
#include <cmath>
#include <map>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/data/vocabulary.hpp"
#include "tokeniser_file.hpp"

namespace comigs::data {

namespace {

// A step of a tokeniser with the settings that older versions of the library did not write, or wrote in
// another way.
Json with_defaults(Json step) {
  const Json type = step.value("type", Json());
  if (type == "ByteLevel") step["use_regex"] = step.value("use_regex", Json(true));
  if (type == "Metaspace") {
    const bool prepends = step.value("add_prefix_space", Json(true)) != false;
    step["prepend_scheme"] = step.value("prepend_scheme", Json(prepends ? "always" : "never"));
    step["split"] = step.value("split", Json(true));
    step.erase("add_prefix_space");
  }
  return step;
}

// What changes no token is left out: what is absent, off or empty, which are one, and what is about offsets.
Json meaning(const Json& part) {
  if (part.is_array()) {
    Json list = Json::array();
    for (const Json& entry : part) list.push_back(meaning(entry));
    return list;
  }
  if (!part.is_object()) return part;
  Json object = Json::object();
  const Json step = with_defaults(part);
  for (const auto& [name, value] : step.items())
    if (!value.is_null() && value != false && value != "" && name != "trim_offsets" && name != "str_rep")
      object[name] = meaning(value);
  return object;
}

// Of the model, but for its tokens, and for dropout, which leaves out merges by chance.
Json settings(const TokeniserFile& file) {
  Json settings = Json::object();
  for (const auto& [name, value] : file.model().items())
    if (name != "type" && name != "vocab" && name != "merges" && name != "dropout") settings[name] = value;
  return meaning(settings);
}

// "a b", which newer versions write as ["a", "b"].
std::vector<std::string> merges(const TokeniserFile& file) {
  std::vector<std::string> merges;
  const Json list = file.model().value("merges", Json::array());
  if (!list.is_null() && !list.is_array()) file.fail("model.merges", "a list");
  for (const Json& merge : list) {
    const bool is_pair =
        merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    if (!is_pair && !merge.is_string())
      file.fail(fmt::format("model.merges[{}]", merges.size()), "two tokens");
    merges.push_back(is_pair ? merge[0].get<std::string>() + " " + merge[1].get<std::string>()
                             : merge.get<std::string>());
  }
  return merges;
}

// Scores are written in decimal and read back to a neighbouring number.
bool are_close(const std::vector<double>& one, const std::vector<double>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(), [](double a, double b) {
    return a == b || std::abs(a - b) <= 1e-9 * std::max(std::abs(a), std::abs(b));
  });
}

std::string different_tokens(const TokeniserFile& one, const TokeniserFile& other) {
  const auto by_text = [](const TokeniserFile& file) {
    std::map<std::string, std::int64_t> ids;
    for (const auto& [token, id] : file.tokens()) ids[token] = id;
    return ids;
  };
  const auto first = by_text(one), second = by_text(other);
  const auto text = [](const auto& ids, const std::string& token) {
    const auto found = ids.find(token);
    return found == ids.end() ? std::string("absent") : std::to_string(found->second);
  };
  for (const auto* tokens : {&first, &second})
    for (const auto& [token, id] : *tokens)
      if (text(first, token) != text(second, token))
        return fmt::format("token '{}' is {} in it, {} there", printable(token), text(first, token),
                           text(second, token));
  return {};
}

}  // namespace

std::string tokeniser_difference(const std::filesystem::path& one_file,
                                 const std::filesystem::path& other_file) {
  const TokeniserFile one(one_file), other(other_file);
  if (std::string tokens = different_tokens(one, other); !tokens.empty()) return tokens;
  const auto part = [](const TokeniserFile& file, const char* name) {
    return meaning(file.root().value(name, Json()));
  };
  const Json type = one.model().value("type", Json()), other_type = other.model().value("type", Json());
  if (!type.is_null() && !other_type.is_null() && type != other_type)
    return fmt::format("its model is {}, {} there", printable(type.dump()), printable(other_type.dump()));
  if (merges(one) != merges(other)) return "its merges are others";
  if (!are_close(one.scores(), other.scores())) return "its scores are others";
  if (settings(one) != settings(other)) return "its model has other settings";
  if (part(one, "normalizer") != part(other, "normalizer")) return "its normaliser is another";
  if (part(one, "pre_tokenizer") != part(other, "pre_tokenizer")) return "its pre-tokeniser is another";
  return {};
}

}  // namespace comigs::data
