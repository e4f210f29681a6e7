#include "peft_config.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/model/config_file.hpp"

namespace comigs::adapter {

namespace {

using model::ConfigFile;

constexpr std::int64_t most_rank = 1 << 16;
constexpr double most_alpha = 1e6;
constexpr std::size_t most_expression_bytes = 256, most_expressions = 32;

// What makes more of a LoRA than scale B A, or of an adapter than LoRAs.
constexpr const char* variants[] = {
    "use_dora",          "use_qalora",   "use_bdlora",        "lora_bias",
    "modules_to_save",   "arrow_config", "target_parameters", "trainable_token_indices",
    "layer_replication", "kasa_config",  "monteclora_config", "alora_invocation_tokens"};

bool says_nothing(const nlohmann::json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

void refuse_variants(const ConfigFile& config) {
  const nlohmann::json type = config.value("peft_type", nullptr);
  if (type != "LORA") config.fail("peft_type", type.is_null() ? "missing" : type.dump(), "\"LORA\"");
  for (const char* name : variants)
    if (const nlohmann::json value = config.value(name, nullptr); !says_nothing(value))
      config.fail(name, value.dump(), "none: comigs begins with plain LoRA alone");
  config.insist("bias", "none");
  // The others begin by changing the base.
  if (const nlohmann::json start = config.value("init_lora_weights", true); !start.is_boolean())
    config.insist_on_one("init_lora_weights", start, {"gaussian", "eva", "orthogonal"});
}

bool is_plain_name(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.'; });
}

// The whole name, or its end after a dot. A dot in a pattern is any character.
bool ends_in(std::string_view module, std::string_view pattern) {
  if (pattern.size() > module.size()) return false;
  const std::size_t begin = module.size() - pattern.size();
  const bool is_same = std::ranges::equal(pattern, module.substr(begin), [](char wanted, char found) {
    return wanted == '.' || wanted == found;
  });
  return is_same && (begin == 0 || module[begin - 1] == '.');
}

// As PEFT puts it together. What a stranger wrote must not take long, nor deep recursion: it is matched in
// polynomial time, and without counts, references and looks ahead.
std::regex expression_of(const std::string& text, const ConfigFile& config, const char* entry) {
  try {
    if (text.size() <= most_expression_bytes && text.find('{') == text.npos && text.find("(?") == text.npos)
      return std::regex("(.*\\.)?(" + text + ")",
                        std::regex_constants::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error&) {
    // Told of below.
  }
  config.fail(entry, text,
              fmt::format("names of modules, ends of names, or regular expressions of up to {} characters "
                          "without '{{' and '(?'",
                          most_expression_bytes));
}

std::vector<PeftConfig::Pattern> read_patterns(const ConfigFile& config, const char* entry, double most,
                                               bool whole) {
  const nlohmann::json given = config.value(entry, nlohmann::json::object());
  if (!given.is_object()) config.fail(entry, given.dump(), "an object of modules and numbers");
  std::vector<PeftConfig::Pattern> patterns;
  std::size_t expressions = 0;
  for (const auto& [text, value] : given.items()) {
    const double number = value.is_number() ? value.get<double>() : 0.0;
    if (!(number > 0.0) || number > most || (whole && number != std::floor(number)))
      config.fail(entry, fmt::format("{} for {}", printable(value.dump()), printable(text)),
                  fmt::format("{}numbers above 0, at most {}", whole ? "whole " : "", most));
    patterns.push_back({.text = text, .number = number, .is_plain = is_plain_name(text)});
    if (patterns.back().is_plain) continue;
    if (++expressions > most_expressions)
      config.fail(entry, "an object of many regular expressions",
                  fmt::format("at most {}, and names of modules", most_expressions));
    patterns.back().expression = expression_of(text, config, entry);
  }
  return patterns;
}

}  // namespace

bool PeftConfig::Pattern::matches(const std::string& module) const {
  return is_plain ? ends_in(module, text) : std::regex_match(module, expression);
}

PeftConfig::PeftConfig(const nlohmann::json& values, std::filesystem::path file) : file_(std::move(file)) {
  if (!values.is_object()) throw DataError(fmt::format("{}: not a JSON object", file_.string()));
  const ConfigFile config(values, file_);
  refuse_variants(config);
  constexpr std::int64_t unsaid = 8;  // PEFT's own r and lora_alpha
  rank_ = config.size_or("r", unsaid, most_rank);
  alpha_ = config.number_or("lora_alpha", unsaid, 0.0, most_alpha);
  by_root_ = config.flag("use_rslora", false);
  ranks_ = read_patterns(config, "rank_pattern", static_cast<double>(most_rank), true);
  alphas_ = read_patterns(config, "alpha_pattern", most_alpha, false);
}

std::int64_t PeftConfig::rank(const std::string& module) const {
  return std::llround(number_of(module, "rank_pattern", ranks_, static_cast<double>(rank_)));
}

double PeftConfig::scale(const std::string& module) const {
  const auto r = static_cast<double>(rank(module));
  return number_of(module, "alpha_pattern", alphas_, alpha_) / (by_root_ ? std::sqrt(r) : r);
}

double PeftConfig::number_of(const std::string& module, const char* entry,
                             const std::vector<Pattern>& patterns, double absent) const {
  const Pattern* found = nullptr;
  for (const Pattern& pattern : patterns) {
    if (!pattern.matches(module)) continue;
    // PEFT takes the first, but the entries of a JSON object have no order.
    if (found != nullptr && found->number != pattern.number)
      throw DataError(fmt::format("{}: '{}' has {} by '{}' and {} by '{}' for {}, expected one number",
                                  file_.string(), entry, found->number, printable(found->text),
                                  pattern.number, printable(pattern.text), module));
    found = &pattern;
  }
  return found != nullptr ? found->number : absent;
}

}  // namespace comigs::adapter
