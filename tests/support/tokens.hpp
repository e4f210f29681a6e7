// Token files and data-set folders of a few hundred tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comigs/base/random.hpp"
#include "comigs/data/manifest.hpp"
#include "comigs/data/token_shard.hpp"

namespace comigs::test {

using Tokens = std::vector<std::int64_t>;

inline void write_text(const std::filesystem::path& file, std::string_view text) {
  std::ofstream stream(file, std::ios::binary);
  stream << text;
  if (!stream.flush()) throw std::runtime_error("cannot write " + file.string());
}

/// The tokens as data_prep writes them: raw, little endian.
inline void write_tokens(const std::filesystem::path& file, const Tokens& tokens,
                         data::TokenType type = data::TokenType::uint16) {
  std::string bytes;
  for (const std::int64_t token : tokens)
    for (int byte = 0; byte < (type == data::TokenType::uint16 ? 2 : 4); ++byte)
      bytes.push_back(static_cast<char>(token >> (8 * byte) & 0xFF));
  write_text(file, bytes);
}

/// Tokens in [first, first + range), the same for the same seed.
inline Tokens random_tokens(std::int64_t count, std::int64_t range, std::uint64_t seed,
                            std::int64_t first = 0) {
  RandomStream stream({.seed = seed, .user = 99});
  Tokens tokens;
  for (std::int64_t i = 0; i < count; ++i)
    tokens.push_back(first + static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(range))));
  return tokens;
}

inline data::TokenShard write_shard(const std::filesystem::path& file, const Tokens& tokens,
                                    std::int64_t vocabulary, data::TokenType type = data::TokenType::uint16) {
  write_tokens(file, tokens, type);
  return {{.file = file, .type = type, .tokens = static_cast<std::int64_t>(tokens.size())}, vocabulary};
}

/// An index of examples as data_prep writes it: raw int64, little endian.
inline void write_index(const std::filesystem::path& file, const std::vector<data::Example>& examples) {
  std::string bytes;
  for (const data::Example& example : examples)
    for (const std::int64_t number : {example.begin, example.instruction, example.response, example.category})
      for (int byte = 0; byte < 8; ++byte) bytes.push_back(static_cast<char>(number >> (8 * byte) & 0xFF));
  write_text(file, bytes);
}

/// Examples of so many tokens of instruction and response each, all of category 0.
inline std::vector<data::Example> examples_of(
    const std::vector<std::pair<std::int64_t, std::int64_t>>& lengths) {
  std::vector<data::Example> examples;
  std::int64_t begin = 0;
  for (const auto& [instruction, response] : lengths) {
    examples.push_back({.begin = begin, .instruction = instruction, .response = response});
    begin += instruction + response;
  }
  return examples;
}

/// What a manifest says of a token file that is made up of these, and their index beside it.
inline data::ShardDescription describe_examples(const std::filesystem::path& file, const Tokens& tokens,
                                                const std::vector<data::Example>& examples) {
  const std::filesystem::path index = file.string() + ".examples";
  write_tokens(file, tokens);
  write_index(index, examples);
  std::int64_t longest = 0;
  for (const data::Example& example : examples) longest = std::max(longest, example.tokens());
  return {.file = file,
          .tokens = static_cast<std::int64_t>(tokens.size()),
          .examples = data::ExamplesDescription{.file = index,
                                                .count = static_cast<std::int64_t>(examples.size()),
                                                .longest = longest,
                                                .categories = 1}};
}

/// Six random examples of three categories, in a file of their own.
inline data::TokenShard write_examples(const std::filesystem::path& file, std::int64_t vocabulary,
                                       std::uint64_t seed) {
  std::vector<data::Example> examples = examples_of({{3, 2}, {1, 4}, {2, 4}, {4, 1}, {1, 1}, {2, 3}});
  for (std::size_t i = 0; i < examples.size(); ++i) examples[i].category = static_cast<std::int64_t>(i % 3);
  const std::int64_t count = examples.back().begin + examples.back().tokens();
  data::ShardDescription told = describe_examples(file, random_tokens(count, vocabulary, seed), examples);
  told.examples->categories = 3;
  return {told, vocabulary};
}

/// A user's three splits, in files named after it.
inline data::UserData write_user(const std::filesystem::path& folder, const std::string& name,
                                 const Tokens& train, const Tokens& validation, const Tokens& test,
                                 std::int64_t vocabulary) {
  return {.train = write_shard(folder / (name + "-train.bin"), train, vocabulary),
          .validation = write_shard(folder / (name + "-validation.bin"), validation, vocabulary),
          .test = write_shard(folder / (name + "-test.bin"), test, vocabulary)};
}

}  // namespace comigs::test
