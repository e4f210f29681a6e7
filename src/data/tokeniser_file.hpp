// A tokenizer.json, of whatever model: its tokens and what decides how text becomes them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "json_file.hpp"

namespace comigs::data {

class TokeniserFile : public JsonFile {
 public:
  using JsonFile::JsonFile;

  /// The model's tokens and then those that were added, each with its number. Throws DataError naming the
  /// entry at fault.
  [[nodiscard]] std::vector<std::pair<std::string, std::int64_t>> tokens() const;
  [[nodiscard]] const Json& model() const { return member(root(), "model", ""); }
  /// Of Unigram, in the order of its tokens; empty for other models.
  [[nodiscard]] std::vector<double> scores() const;
};

}  // namespace comigs::data
