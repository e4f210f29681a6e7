#include "comigs/data/vocabulary.hpp"

#include <algorithm>
#include <map>
#include <optional>

#include "tokeniser_file.hpp"

namespace comigs::data {

namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

std::uint8_t byte_at(std::string_view text, std::size_t index) {
  return static_cast<std::uint8_t>(text[index]);
}

// What a first byte says: how many bytes follow, and between which bounds the second must lie (Unicode 3.9,
// table 3-7).
struct Lead {
  std::size_t following = 0;
  std::uint8_t low = 0x80, high = 0xBF;
};

std::optional<Lead> lead_of(std::uint8_t byte) {
  if (byte >= 0x01 && byte <= 0x7F) return Lead{};
  if (byte >= 0xC2 && byte <= 0xDF) return Lead{.following = 1};
  if (byte == 0xE0) return Lead{.following = 2, .low = 0xA0};
  if (byte == 0xED) return Lead{.following = 2, .high = 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return Lead{.following = 2};
  if (byte == 0xF0) return Lead{.following = 3, .low = 0x90};
  if (byte >= 0xF1 && byte <= 0xF3) return Lead{.following = 3};
  if (byte == 0xF4) return Lead{.following = 3, .high = 0x8F};
  return std::nullopt;
}

// The bytes at the beginning of `rest` that are a character or the longest beginning of one; at least one.
struct Piece {
  std::size_t length = 1;
  bool whole = false;
};

Piece next_piece(std::string_view rest) {
  const std::optional<Lead> lead = lead_of(byte_at(rest, 0));
  if (!lead) return {};
  for (std::size_t i = 1; i <= lead->following; ++i) {
    const std::uint8_t low = i == 1 ? lead->low : 0x80, high = i == 1 ? lead->high : 0xBF;
    if (i == rest.size() || byte_at(rest, i) < low || byte_at(rest, i) > high) return {.length = i};
  }
  return {.length = 1 + lead->following, .whole = true};
}

// GPT-2's alphabet: bytes that are visible in Latin-1 stand for themselves, the others, in order, for the
// characters from U+0100 on.
std::map<std::string, char, std::less<>> byte_alphabet() {
  std::map<std::string, char, std::less<>> alphabet;
  unsigned next = 0x100;
  for (unsigned byte = 0; byte < 0x100; ++byte) {
    const bool visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
    const unsigned character = visible ? byte : next++;
    std::string utf8;
    if (character >= 0x80) utf8 += static_cast<char>(0xC0 | (character >> 6));
    utf8 += static_cast<char>(character < 0x80 ? character : 0x80 | (character & 0x3F));
    alphabet[utf8] = static_cast<char>(byte);
  }
  return alphabet;
}

// The bytes that a byte-level token spells; a token with any other character (one that was added) is its own
// text.
std::string bytes_of(std::string_view token) {
  static const std::map<std::string, char, std::less<>> alphabet = byte_alphabet();
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    const std::size_t length = next_piece(rest).length;
    const auto letter = alphabet.find(rest.substr(0, length));
    if (letter == alphabet.end()) return std::string(token);
    bytes += letter->second;
    rest.remove_prefix(length);
  }
  return bytes;
}

bool is_byte_level(const Json& root) {
  const Json decoder = root.value("decoder", Json());
  return decoder.is_object() && decoder.value("type", Json()) == "ByteLevel";
}

}  // namespace

std::string valid_text(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const Piece piece = next_piece(bytes);
    text += piece.whole ? bytes.substr(0, piece.length) : replacement;
    bytes.remove_prefix(piece.length);
  }
  return text;
}

Vocabulary::Vocabulary(const std::filesystem::path& tokeniser) {
  const TokeniserFile file(tokeniser);
  const std::vector<std::pair<std::string, std::int64_t>> tokens = file.tokens();
  const bool byte_level = is_byte_level(file.root());
  for (const auto& [token, id] : tokens) {
    bytes_[id] = byte_level ? bytes_of(token) : token;
    size_ = std::max(size_, id + 1);
  }
}

std::string Vocabulary::text(std::int64_t token) const { return text(std::span(&token, 1)); }

std::string Vocabulary::text(std::span<const std::int64_t> tokens) const {
  std::string bytes;
  for (const std::int64_t token : tokens) {
    const auto found = bytes_.find(token);
    bytes += found == bytes_.end() ? replacement : found->second;
  }
  return valid_text(bytes);
}

}  // namespace comigs::data
