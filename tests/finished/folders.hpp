// A base model, and a data set of two users with their texts, for what is done with them besides training.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "comigs/base/sha256.hpp"
#include "comigs/io/mapped_file.hpp"
#include "support/manifest.hpp"
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
    std::vector<std::string> users;
    for (const std::string user : {"German", "Dutch"})
      users.push_back(user_entry(user, split(user + "-train.bin", 200), split(user + "-validation.bin", 60),
                                 split(user + "-test.bin", 90)));
    write_manifest(data, users,
                   fmt::format(R"({{"splits": {{"train": {}, "validation": {}}}}})",
                               split("base-train.bin", 300), split("base-validation.bin", 60)));
  }

  [[nodiscard]] Tokens tokens_of(const std::string& file, std::int64_t count) const {
    return random_tokens(count, vocabulary, std::hash<std::string>{}(file) % 1000);
  }

 private:
  [[nodiscard]] std::string split(const std::string& file, std::int64_t count) const {
    const std::filesystem::path place = std::filesystem::path(data) / file;
    write_tokens(place, tokens_of(file, count));
    const io::MappedFile written(place);
    return split_entry(file, count, sha256(written.bytes()));
  }
};

}  // namespace comigs::test
