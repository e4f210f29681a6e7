// The manifest of a small data set, as data_prep writes it.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <string>
#include <vector>

#include "support/tokens.hpp"

namespace comigs::test {

/// What a manifest says of a token file.
inline std::string split_entry(const std::string& file, std::int64_t tokens, const std::string& digest) {
  return fmt::format(R"({{"file": "{}", "tokens": {}, "documents": 1, "sha256": "{}"}})", file, tokens,
                     digest);
}

/// Of a user, from the entries of its splits.
inline std::string user_entry(const std::string& name, const std::string& train,
                              const std::string& validation, const std::string& test) {
  return fmt::format(R"({{"name": "{}", "splits": {{"train": {}, "validation": {}, "test": {}}}}})", name,
                     train, validation, test);
}

/// A data set "sample" of 37 tokens in uint16; `base`: JSON of its base corpus.
inline void write_manifest(const std::filesystem::path& folder, const std::vector<std::string>& users,
                           const std::string& base = "null") {
  write_text(folder / "manifest.json",
             fmt::format(R"({{"format": "comigs-dataset", "format_version": 1, "name": "sample", "seed": 0,
                             "tokeniser": {{"kind": "byte-level-bpe", "file": "tokenizer.json",
                                            "vocabulary": 37, "end_of_text": 0}},
                             "dtype": "uint16", "users": [{}], "base": {}, "sources": []}})",
                         fmt::join(users, ", "), base));
}

}  // namespace comigs::test
