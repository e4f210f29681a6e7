#include "comigs/data/manifest.hpp"

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "json_file.hpp"

namespace comigs::data {

namespace {

namespace fs = std::filesystem;

// Of manifest.json: entries that name files.
class ManifestReader : public JsonFile {
 public:
  explicit ManifestReader(const fs::path& file) : JsonFile(file), folder_(file.parent_path()) {}

  // A file of the folder: a manifest from elsewhere must not make us read other files.
  [[nodiscard]] fs::path path(const Json& object, const std::string& where) const {
    const std::string name = text(object, "file", where);
    const fs::path relative = fs::path(name).lexically_normal();
    if (!is_printable(name) || relative.is_absolute() || relative.empty() || *relative.begin() == "..")
      fail(where + "file", "a path inside the data-set folder");
    // Nor must a link inside the folder. What cannot be followed, such as a link to itself, is refused too.
    std::error_code error;
    const fs::path real = fs::weakly_canonical(folder_ / relative, error), home = fs::canonical(folder_);
    if (error || std::mismatch(home.begin(), home.end(), real.begin(), real.end()).first != home.end())
      fail(where + "file", "a path inside the data-set folder");
    return folder_ / relative;
  }

  // What the splits of users are made up of: version 2 has examples.
  [[nodiscard]] std::vector<std::string> categories() const {
    if (text(root(), "format", "") != "comigs-dataset") fail("format", "'comigs-dataset'");
    const std::int64_t version = count(root(), "format_version", "");
    if (version == 1) return {};
    if (version != 2 || text(root(), "reading", "") != "examples")
      fail("format_version", "1, or 2 with 'examples' as 'reading': is the data set from a newer comigs?");
    const Json& entries = member(root(), "categories", "");
    if (!entries.is_array() || entries.empty()) fail("categories", "a list with at least one name");
    std::vector<std::string> names;
    for (const Json& entry : entries) {
      if (!entry.is_string() || !is_short_and_printable(entry.get_ref<const std::string&>()))
        fail(fmt::format("categories[{}]", names.size()),
             fmt::format("printable and of at most {} bytes", longest_name_bytes));
      names.push_back(entry.get<std::string>());
    }
    return names;
  }

  // Of a user's split, which has examples of these categories, if there are any.
  [[nodiscard]] ShardDescription split(const Json& splits, const std::string& name, TokenType type,
                                       const std::string& where, std::int64_t categories) const {
    ShardDescription found = shard(splits, name, type, where);
    if (categories == 0) return found;
    const std::string here = where + name + ".";
    const Json& entry = member(splits.at(name), "examples", here);
    found.examples = {.file = path(entry, here + "examples."),
                      .count = count(entry, "count", here + "examples."),
                      .longest = count(entry, "longest", here + "examples."),
                      .categories = categories,
                      .sha256 = text(entry, "sha256", here + "examples.")};
    return found;
  }

  [[nodiscard]] ShardDescription shard(const Json& splits, const std::string& split, TokenType type,
                                       const std::string& where) const {
    const std::string here = where + split + ".";
    const Json& entry = member(splits, split, where);
    return {.file = path(entry, here),
            .type = type,
            .tokens = count(entry, "tokens", here),
            .sha256 = text(entry, "sha256", here),
            .examples = std::nullopt};
  }

 private:
  fs::path folder_;
};

TokenType token_type(const ManifestReader& reader) {
  const std::string name = reader.text(reader.root(), "dtype", "");
  if (name == "uint16") return TokenType::uint16;
  if (name == "uint32") return TokenType::uint32;
  reader.fail("dtype", "'uint16' or 'uint32'");
}

// Names head tables and label results: short, printable, one for each user.
void check_name(const ManifestReader& reader, const std::string& name, const std::string& where,
                const std::vector<UserShards>& others) {
  if (!is_short_and_printable(name))
    reader.fail(where + "name", fmt::format("printable and of at most {} bytes", longest_name_bytes));
  if (std::any_of(others.begin(), others.end(), [&](const UserShards& other) { return other.name == name; }))
    reader.fail(where + "name", "different from the other users' names");
}

std::vector<UserShards> read_users(const ManifestReader& reader, TokenType type, std::int64_t categories) {
  const Json& entries = reader.member(reader.root(), "users", "");
  if (!entries.is_array() || entries.empty()) reader.fail("users", "a list with at least one user");
  std::vector<UserShards> users;
  for (const Json& entry : entries) {
    const std::string where = fmt::format("users[{}].", users.size());
    const Json& splits = reader.member(entry, "splits", where);
    const std::string here = where + "splits.";
    users.push_back({.name = reader.text(entry, "name", where),
                     .train = reader.split(splits, "train", type, here, categories),
                     .validation = reader.split(splits, "validation", type, here, categories),
                     .test = reader.split(splits, "test", type, here, categories)});
    check_name(reader, users.back().name, where, {users.begin(), users.end() - 1});
  }
  return users;
}

}  // namespace

Manifest read_manifest(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw DataError(
        fmt::format("{}: no such data-set folder; make one with 'python -m data_prep'", folder.string()));
  const ManifestReader reader(folder / "manifest.json");
  const std::vector<std::string> categories = reader.categories();
  const TokenType type = token_type(reader);
  const Json& tokeniser = reader.member(reader.root(), "tokeniser", "");
  const std::string name = reader.text(reader.root(), "name", "");
  if (!is_short_and_printable(name))
    reader.fail("name", fmt::format("printable and of at most {} bytes", longest_name_bytes));
  Manifest manifest{.name = name,
                    .vocabulary = reader.count(tokeniser, "vocabulary", "tokeniser."),
                    .tokeniser = reader.path(tokeniser, "tokeniser."),
                    .tokeniser_sha256 = tokeniser.contains("sha256")
                                            ? reader.text(tokeniser, "sha256", "tokeniser.")
                                            : std::string(),
                    .end_of_text = tokeniser.contains("end_of_text")
                                       ? std::optional(reader.count(tokeniser, "end_of_text", "tokeniser."))
                                       : std::nullopt,
                    .categories = categories,
                    .users = read_users(reader, type, std::ssize(categories)),
                    .base = std::nullopt,
                    .digest = reader.digest()};
  if (reader.root().contains("base") && !reader.root().at("base").is_null()) {
    const Json& splits = reader.member(reader.root().at("base"), "splits", "base.");
    manifest.base = BaseShards{.train = reader.shard(splits, "train", type, "base.splits."),
                               .validation = reader.shard(splits, "validation", type, "base.splits.")};
  }
  return manifest;
}

void check_tokeniser(const Manifest& manifest) {
  if (!manifest.tokeniser_sha256.empty() && sha256_of_file(manifest.tokeniser) != manifest.tokeniser_sha256)
    throw DataError(fmt::format(
        "{}: its SHA-256 is not the one in the manifest: the file was changed after the data set was made",
        manifest.tokeniser.string()));
}

UserData open_user(const Manifest& manifest, std::int64_t user) {
  const UserShards& shards = manifest.users.at(static_cast<std::size_t>(user));
  return {.train = TokenShard(shards.train, manifest.vocabulary),
          .validation = TokenShard(shards.validation, manifest.vocabulary),
          .test = TokenShard(shards.test, manifest.vocabulary)};
}

}  // namespace comigs::data
