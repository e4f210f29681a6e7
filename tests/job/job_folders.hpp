// A base model and a data set that jobs can be settled for, without the texts themselves.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::test {

struct JobFolders : TemporaryFolder {
  std::string base = (folder / "base").string(), data = (folder / "data").string();

  explicit JobFolders(const std::vector<std::string>& users = {"German", "Dutch"}) {
    std::filesystem::create_directories(base);
    std::filesystem::create_directories(data);
    const model::Architecture architecture = model::gpt2_architecture(2, 16, 2, 37, 64);
    write_base(base, architecture, random_weights(architecture));
    std::string entries;
    for (const std::string& user : users)
      entries += fmt::format(R"({}{{"name": "{}", "splits": {{"train": {}, "validation": {}, "test": {}}}}})",
                             entries.empty() ? "" : ", ", user, split(user + "/train.bin", 2000),
                             split(user + "/validation.bin", 300), split(user + "/test.bin", 200));
    write_text(std::filesystem::path(data) / "manifest.json",
               fmt::format(R"({{"format": "comigs-dataset", "format_version": 1, "name": "sample", "seed": 0,
                               "tokeniser": {{"kind": "byte-level-bpe", "file": "tokenizer.json",
                                              "vocabulary": 37, "end_of_text": 0}},
                               "dtype": "uint16", "users": [{}], "base": null, "sources": []}})",
                           entries));
  }

  /// What a command line has to say of them, and some more.
  [[nodiscard]] std::vector<std::string> with(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {
        "--data", data, "--model", base, "--output", (folder / "out").string(), "--context-tokens", "32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

 private:
  static std::string split(const std::string& file, int tokens) {
    return fmt::format(R"({{"file": "{}", "tokens": {}, "documents": 1, "sha256": "ab"}})", file, tokens);
  }
};

}  // namespace comigs::test
