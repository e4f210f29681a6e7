// A base model, and a data set of two users with their texts, for what is done with them besides training.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>

#include "comigs/base/sha256.hpp"
#include "comigs/io/mapped_file.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"
#include "support/tokens.hpp"

namespace comigs::test {

struct FinishedFolders : TemporaryFolder {
  static constexpr std::int64_t vocabulary = 37;

  model::Architecture architecture = tiny_architecture();
  std::string base = (folder / "base").string(), data = (folder / "data").string();

  FinishedFolders() {
    std::filesystem::create_directories(base);
    std::filesystem::create_directories(data);
    write_base(base, architecture, random_weights(architecture));
    std::string users;
    for (const char* user : {"German", "Dutch"})
      users += fmt::format(R"({}{{"name": "{}", "splits": {{"train": {}, "validation": {}, "test": {}}}}})",
                           users.empty() ? "" : ", ", user, split(fmt::format("{}-train.bin", user), 200),
                           split(fmt::format("{}-validation.bin", user), 60),
                           split(fmt::format("{}-test.bin", user), 90));
    write_text(
        std::filesystem::path(data) / "manifest.json",
        fmt::format(R"({{"format": "comigs-dataset", "format_version": 1, "name": "sample", "seed": 0,
                               "tokeniser": {{"kind": "byte-level-bpe", "file": "tokenizer.json",
                                              "vocabulary": {}, "end_of_text": 0}},
                               "dtype": "uint16", "users": [{}], "base": {{"splits": {{"train": {}, "validation": {}}}}},
                               "sources": []}})",
                    vocabulary, users, split("base-train.bin", 300), split("base-validation.bin", 60)));
  }

  [[nodiscard]] Tokens tokens_of(const std::string& file, std::int64_t count) const {
    return random_tokens(count, vocabulary, std::hash<std::string>{}(file) % 1000);
  }

 private:
  [[nodiscard]] std::string split(const std::string& file, std::int64_t count) const {
    const std::filesystem::path place = std::filesystem::path(data) / file;
    write_tokens(place, tokens_of(file, count));
    const io::MappedFile written(place);
    return fmt::format(R"({{"file": "{}", "tokens": {}, "documents": 1, "sha256": "{}"}})", file, count,
                       sha256(written.bytes()));
  }
};

}  // namespace comigs::test
