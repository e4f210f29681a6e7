#include "tokeniser_file.hpp"

#include "comigs/base/error.hpp"

namespace comigs::data {

std::vector<std::pair<std::string, std::int64_t>> TokeniserFile::tokens() const {
  const Json& vocabulary = member(model(), "vocab", "model.");
  std::vector<std::pair<std::string, std::int64_t>> tokens;
  if (vocabulary.is_object()) {
    for (const auto& [token, id] : vocabulary.items())
      tokens.emplace_back(token, count(vocabulary, token, "model.vocab."));
  } else if (vocabulary.is_array()) {
    for (const Json& entry : vocabulary) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        fail(fmt::format("model.vocab[{}]", tokens.size()), "a token and its score");
      tokens.emplace_back(entry[0].get<std::string>(), static_cast<std::int64_t>(tokens.size()));
    }
  } else {
    fail("model.vocab", "an object of tokens and their numbers, or a list of tokens and their scores");
  }
  const Json added = root().value("added_tokens", Json::array());
  if (!added.is_array()) fail("added_tokens", "a list");
  for (std::size_t i = 0; i < added.size(); ++i) {
    const std::string where = fmt::format("added_tokens[{}].", i);
    tokens.emplace_back(text(added[i], "content", where), count(added[i], "id", where));
  }
  return tokens;
}

std::vector<double> TokeniserFile::scores() const {
  std::vector<double> scores;
  const Json& vocabulary = member(model(), "vocab", "model.");
  if (vocabulary.is_array())
    for (const Json& entry : vocabulary) scores.push_back(entry[1].get<double>());
  return scores;
}

}  // namespace comigs::data
