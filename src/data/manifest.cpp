#include "comigs/data/manifest.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/io/sha256.hpp"

namespace comigs::data {

namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

// Reads entries of one JSON file and knows where it is, so that errors can say so.
class Reader {
 public:
  explicit Reader(fs::path file) : file_(std::move(file)), folder_(file_.parent_path()) {
    const io::MappedFile text(file_);
    const std::string_view characters(reinterpret_cast<const char*>(text.data()), text.size_bytes());
    digest_ = io::sha256(text.bytes());
    root_ = Json::parse(characters, nullptr, false);
    if (root_.is_discarded()) throw DataError(fmt::format("{}: not valid JSON", file_.string()));
  }

  [[nodiscard]] const Json& root() const { return root_; }
  [[nodiscard]] const std::string& digest() const { return digest_; }

  [[noreturn]] void fail(const std::string& where, std::string_view expected) const {
    throw DataError(fmt::format("{}: '{}' is missing or not {}", file_.string(), where, expected));
  }

  [[nodiscard]] const Json& member(const Json& object, const std::string& name,
                                   const std::string& where) const {
    if (!object.is_object() || !object.contains(name)) fail(where + name, "there");
    return object.at(name);
  }

  [[nodiscard]] std::string text(const Json& object, const std::string& name,
                                 const std::string& where) const {
    const Json& value = member(object, name, where);
    if (!value.is_string() || value.get_ref<const std::string&>().empty()) fail(where + name, "a text");
    return value.get<std::string>();
  }

  [[nodiscard]] std::int64_t count(const Json& object, const std::string& name,
                                   const std::string& where) const {
    const Json& value = member(object, name, where);
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > (std::uint64_t{1} << 48))
      fail(where + name, "a count");
    return value.get<std::int64_t>();
  }

  // A file of the folder: a manifest from elsewhere must not make us read other files.
  [[nodiscard]] fs::path path(const Json& object, const std::string& where) const {
    const fs::path relative = fs::path(text(object, "file", where)).lexically_normal();
    if (relative.is_absolute() || relative.empty() || *relative.begin() == "..")
      fail(where + "file", "a path inside the data-set folder");
    // Nor must a link inside the folder.
    const fs::path real = fs::weakly_canonical(folder_ / relative), home = fs::canonical(folder_);
    if (std::mismatch(home.begin(), home.end(), real.begin(), real.end()).first != home.end())
      fail(where + "file", "a path inside the data-set folder");
    return folder_ / relative;
  }

  [[nodiscard]] ShardDescription shard(const Json& splits, const std::string& split, TokenType type,
                                       const std::string& where) const {
    const std::string here = where + split + ".";
    const Json& entry = member(splits, split, where);
    return {.file = path(entry, here),
            .type = type,
            .tokens = count(entry, "tokens", here),
            .sha256 = text(entry, "sha256", here)};
  }

 private:
  fs::path file_, folder_;
  std::string digest_;
  Json root_;
};

TokenType token_type(const Reader& reader) {
  const std::string name = reader.text(reader.root(), "dtype", "");
  if (name == "uint16") return TokenType::uint16;
  if (name == "uint32") return TokenType::uint32;
  reader.fail("dtype", "'uint16' or 'uint32'");
}

// Names head tables and label results: short, printable, one for each user.
void check_name(const Reader& reader, const std::string& name, const std::string& where,
                const std::vector<UserShards>& others) {
  constexpr std::size_t longest = 64;
  const bool printable = std::none_of(
      name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  if (name.size() > longest || !printable)
    reader.fail(where + "name", fmt::format("printable and of at most {} bytes", longest));
  if (std::any_of(others.begin(), others.end(), [&](const UserShards& other) { return other.name == name; }))
    reader.fail(where + "name", "different from the other users' names");
}

std::vector<UserShards> read_users(const Reader& reader, TokenType type) {
  const Json& entries = reader.member(reader.root(), "users", "");
  if (!entries.is_array() || entries.empty()) reader.fail("users", "a list with at least one user");
  std::vector<UserShards> users;
  for (const Json& entry : entries) {
    const std::string where = fmt::format("users[{}].", users.size());
    const Json& splits = reader.member(entry, "splits", where);
    const std::string here = where + "splits.";
    users.push_back({.name = reader.text(entry, "name", where),
                     .train = reader.shard(splits, "train", type, here),
                     .validation = reader.shard(splits, "validation", type, here),
                     .test = reader.shard(splits, "test", type, here)});
    check_name(reader, users.back().name, where, {users.begin(), users.end() - 1});
  }
  return users;
}

}  // namespace

Manifest read_manifest(const fs::path& folder) {
  if (!fs::is_directory(folder))
    throw DataError(
        fmt::format("{}: no such data-set folder; make one with 'python -m data_prep'", folder.string()));
  const Reader reader(folder / "manifest.json");
  const std::string format = reader.text(reader.root(), "format", "");
  if (format != "comigs-dataset" || reader.count(reader.root(), "format_version", "") != 1)
    reader.fail("format", "'comigs-dataset' of version 1");
  const TokenType type = token_type(reader);
  const Json& tokeniser = reader.member(reader.root(), "tokeniser", "");
  Manifest manifest{.name = reader.text(reader.root(), "name", ""),
                    .vocabulary = reader.count(tokeniser, "vocabulary", "tokeniser."),
                    .tokeniser = reader.path(tokeniser, "tokeniser."),
                    .users = read_users(reader, type),
                    .base = std::nullopt,
                    .digest = reader.digest()};
  if (reader.root().contains("base") && !reader.root().at("base").is_null()) {
    const Json& splits = reader.member(reader.root().at("base"), "splits", "base.");
    manifest.base = BaseShards{.train = reader.shard(splits, "train", type, "base.splits."),
                               .validation = reader.shard(splits, "validation", type, "base.splits.")};
  }
  return manifest;
}

bool same_vocabulary(const fs::path& one, const fs::path& other) {
  const auto vocabulary = [](const fs::path& file) {
    const Reader reader(file);
    return reader.member(reader.member(reader.root(), "model", ""), "vocab", "model.");
  };
  return vocabulary(one) == vocabulary(other);
}

UserData open_user(const Manifest& manifest, std::int64_t user) {
  const UserShards& shards = manifest.users.at(static_cast<std::size_t>(user));
  return {.train = TokenShard(shards.train, manifest.vocabulary),
          .validation = TokenShard(shards.validation, manifest.vocabulary),
          .test = TokenShard(shards.test, manifest.vocabulary)};
}

}  // namespace comigs::data
