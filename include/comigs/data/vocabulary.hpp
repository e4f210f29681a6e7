// Tokens as the text that they stand for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

namespace comigs::data {

/// The bytes as UTF-8 text that any reader of C strings takes: what is no UTF-8 becomes U+FFFD, one for each
/// longest beginning of a character (Unicode 3.9, "substitution of maximal subparts"), and so does NUL.
[[nodiscard]] std::string valid_text(std::string_view bytes);

/// What makes other tokens of a text with one tokenizer.json than with another ("its merges are others");
/// empty where nothing does, however the files are written: order and white space, padding, truncation, what
/// is put around a text and how tokens become text again do not count. Throws DataError naming the file that
/// is no tokeniser.
[[nodiscard]] std::string tokeniser_difference(const std::filesystem::path& one,
                                               const std::filesystem::path& other);

/// The tokens of a tokenizer.json of any model, decoded one by one.
class Vocabulary {
 public:
  /// Byte-level tokens (GPT-2's byte alphabet) are turned back into bytes; those of other tokenisers stand as
  /// they are. Throws DataError naming the file and the entry at fault.
  explicit Vocabulary(const std::filesystem::path& tokeniser);

  /// One more than the largest number of a token.
  [[nodiscard]] std::int64_t size() const noexcept { return size_; }
  /// U+FFFD where the token is a part of a character only, or the file does not have it.
  [[nodiscard]] std::string text(std::int64_t token) const;
  /// Of tokens one after the other, which may share characters.
  [[nodiscard]] std::string text(std::span<const std::int64_t> tokens) const;

 private:
  std::int64_t size_ = 0;
  std::unordered_map<std::int64_t, std::string> bytes_;
};

}  // namespace comigs::data
