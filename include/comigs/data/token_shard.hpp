// A stream of tokens on disk: raw little-endian uint16 or uint32, mapped read-only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace comigs::io {
class MappedFile;
}

namespace comigs::data {

enum class TokenType { uint16, uint32 };

/// What a manifest promises about a token file.
struct ShardDescription {
  std::filesystem::path file;
  TokenType type = TokenType::uint16;
  std::int64_t tokens = 0;
  std::string sha256 = {};  ///< of the file, hexadecimal; empty: not promised
};

/// One split of one user. Cheap to copy: copies share the mapping.
class TokenShard {
 public:
  /// Maps the file and checks it: its size against the number of tokens promised, every token against the
  /// vocabulary. Throws DataError naming the file, what was found and what was expected.
  TokenShard(const ShardDescription& description, std::int64_t vocabulary);

  [[nodiscard]] std::int64_t size() const noexcept { return size_; }
  /// The first `tokens` of it (all, if it has fewer), of the same mapping.
  [[nodiscard]] TokenShard leading(std::int64_t tokens) const;
  /// Writes tokens [begin, begin + out.size()) to `out`; the range must lie inside the shard.
  void read(std::int64_t begin, std::span<std::int64_t> out) const;

 private:
  std::shared_ptr<const io::MappedFile> file_;
  TokenType type_;
  std::int64_t size_;
};

/// Throws DataError if the shard has fewer than `least` tokens; `reason` says what they are needed for.
void require_tokens(const ShardDescription& shard, std::int64_t least, const std::string& reason);

}  // namespace comigs::data
