// A data-set folder as `data_prep` writes it: who holds which token files, made with which tokeniser.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comigs/data/token_shard.hpp"

namespace comigs::data {

struct UserShards {
  std::string name;
  ShardDescription train, validation, test;
};

/// The corpus from which a base model can be made; no user holds any of its documents.
struct BaseShards {
  ShardDescription train, validation;
};

struct Manifest {
  std::string name;
  std::int64_t vocabulary = 0;
  std::filesystem::path tokeniser;          ///< tokenizer.json
  std::string tokeniser_sha256;             ///< of the file, hexadecimal; empty: not promised
  std::optional<std::int64_t> end_of_text;  ///< the token that ends a document
  std::vector<std::string> categories;      ///< of the examples of users; empty: their splits are plain text
  std::vector<UserShards> users;
  std::optional<BaseShards> base;  ///< plain text
  std::string digest;  ///< SHA-256 of manifest.json, hexadecimal; it names every token file's own digest
};

/// Reads and checks `folder`/manifest.json. Throws DataError naming the file and the entry at fault; paths
/// that lead out of the folder are refused.
[[nodiscard]] Manifest read_manifest(const std::filesystem::path& folder);

/// Throws DataError where the data set's tokeniser is not the file that the manifest means.
void check_tokeniser(const Manifest& manifest);

/// A user's three splits, mapped and checked.
struct UserData {
  TokenShard train, validation, test;
};

/// Throws DataError (see TokenShard); `user` < manifest.users.size().
[[nodiscard]] UserData open_user(const Manifest& manifest, std::int64_t user);

}  // namespace comigs::data
