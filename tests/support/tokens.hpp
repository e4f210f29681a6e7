// Token files and data-set folders of a few hundred tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
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

/// A user's three splits, in files named after it.
inline data::UserData write_user(const std::filesystem::path& folder, const std::string& name,
                                 const Tokens& train, const Tokens& validation, const Tokens& test,
                                 std::int64_t vocabulary) {
  return {.train = write_shard(folder / (name + "-train.bin"), train, vocabulary),
          .validation = write_shard(folder / (name + "-validation.bin"), validation, vocabulary),
          .test = write_shard(folder / (name + "-test.bin"), test, vocabulary)};
}

}  // namespace comigs::test
