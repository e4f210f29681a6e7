// A base model and a data set that jobs can be settled for, without the texts themselves.
#pragma once

#include <string>
#include <vector>

#include "support/manifest.hpp"
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
    std::vector<std::string> entries;
    for (const std::string& user : users)
      entries.push_back(user_entry(user, split_entry(user + "/train.bin", 2000, "ab"),
                                   split_entry(user + "/validation.bin", 300, "ab"),
                                   split_entry(user + "/test.bin", 200, "ab")));
    write_manifest(data, entries);
  }

  /// What a command line has to say of them, and some more.
  [[nodiscard]] std::vector<std::string> with(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {
        "--data", data, "--model", base, "--output", (folder / "out").string(), "--context-tokens", "32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

}  // namespace comigs::test
