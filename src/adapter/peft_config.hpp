// An adapter_config.json of PEFT: what of it decides what an adapter computes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <regex>
#include <string>
#include <vector>

namespace comigs::adapter {

/// Of an adapter that adds scale B A to its modules' weights, and nothing else. `module`: its name in the
/// model that PEFT was given, "transformer.h.0.attn.c_attn". All functions throw DataError naming the file,
/// the entry, what was found and what was expected.
class PeftConfig {
 public:
  PeftConfig(const nlohmann::json& values, std::filesystem::path file);

  /// r, or what rank_pattern has for the module.
  [[nodiscard]] std::int64_t rank(const std::string& module) const;
  /// lora_alpha / r or, with use_rslora, lora_alpha / sqrt(r); of both what the patterns have for the module.
  [[nodiscard]] double scale(const std::string& module) const;

  /// A key of rank_pattern or alpha_pattern, which PEFT takes for a regular expression.
  struct Pattern {
    std::string text;
    double number = 0.0;
    bool is_plain = false;       ///< a name, or the end of one
    std::regex expression = {};  ///< otherwise

    [[nodiscard]] bool matches(const std::string& module) const;
  };

 private:
  [[nodiscard]] double number_of(const std::string& module, const char* entry,
                                 const std::vector<Pattern>& patterns, double absent) const;

  std::filesystem::path file_;
  std::int64_t rank_;
  double alpha_;
  bool by_root_;  // of r
  std::vector<Pattern> ranks_, alphas_;
};

}  // namespace comigs::adapter
