// A stream of tokens on disk: raw little-endian uint16 or uint32, mapped read-only; and, where it is made up
// of examples (instruction data), where each of them lies.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace comigs::io {
class MappedFile;
}

namespace comigs::data {

enum class TokenType { uint16, uint32 };

/// An instruction and its response, as an index file has it: four little-endian int64.
struct Example {
  std::int64_t begin = 0;        ///< of the instruction in the token file
  std::int64_t instruction = 0;  ///< tokens, at least 1
  std::int64_t response = 0;     ///< tokens that follow, end of text among them; at least 1
  std::int64_t category = 0;     ///< of the data set's

  [[nodiscard]] std::int64_t tokens() const noexcept { return instruction + response; }
};

/// What a manifest promises about the examples of a token file.
struct ExamplesDescription {
  std::filesystem::path file;
  std::int64_t count = 0;
  std::int64_t longest = 0;     ///< tokens of the longest example
  std::int64_t categories = 0;  ///< of the data set
  std::string sha256 = {};      ///< of the file, hexadecimal; empty: not promised
};

/// What a manifest promises about a token file.
struct ShardDescription {
  std::filesystem::path file;
  TokenType type = TokenType::uint16;
  std::int64_t tokens = 0;
  std::string sha256 = {};  ///< of the file, hexadecimal; empty: not promised
  std::optional<ExamplesDescription> examples = {};
};

/// The index of a split with examples, which is checked against its tokens; these are not read. Throws
/// DataError.
[[nodiscard]] std::vector<Example> read_examples(const ShardDescription& split);

/// How many of the examples lie within the split's first `tokens`, at least one.
[[nodiscard]] std::size_t leading_examples(std::span<const Example> examples, std::int64_t tokens);

/// One split of one user. Cheap to copy: copies share the mapping.
class TokenShard {
 public:
  /// Maps the file and checks it: its size against the number of tokens promised, every token against the
  /// vocabulary; and its index, if it has one: examples follow each other and make up the whole file. Throws
  /// DataError naming the file, what was found and what was expected.
  TokenShard(const ShardDescription& description, std::int64_t vocabulary);

  [[nodiscard]] std::int64_t size() const noexcept { return size_; }
  /// Whether it is made up of examples; else it is text without borders.
  [[nodiscard]] bool has_examples() const noexcept { return index_ != nullptr; }
  [[nodiscard]] std::span<const Example> examples() const noexcept { return examples_; }
  /// Shards with the same text hold the same tokens and examples; empty where no digest was promised.
  [[nodiscard]] std::string identity() const;
  /// The first `tokens` of it (all, if it has fewer), of the same mapping. Of examples those that end within
  /// them, and the first in any case.
  [[nodiscard]] TokenShard leading(std::int64_t tokens) const;
  /// Writes tokens [begin, begin + out.size()) to `out`; the range must lie inside the shard.
  void read(std::int64_t begin, std::span<std::int64_t> out) const;

 private:
  std::shared_ptr<const io::MappedFile> file_, index_;
  TokenType type_;
  std::int64_t size_;
  std::span<const Example> examples_;
  std::string digests_;  // of the whole files; empty: not promised
};

/// Throws DataError if the shard has fewer than `least` tokens; `reason` says what they are needed for.
void require_tokens(const ShardDescription& shard, std::int64_t least, const std::string& reason);

}  // namespace comigs::data
