#include "comigs/base/printable.hpp"

#include <cstdint>

namespace comigs {

namespace {

// Bytes of the UTF-8 character that the text, which is not empty, begins with; 0: it begins with none.
std::size_t character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t length = byte(0) < 0x80   ? 1
                             : byte(0) < 0xC2 ? 0
                             : byte(0) < 0xE0 ? 2
                             : byte(0) < 0xF0 ? 3
                                              : 4;
  if (length == 1) return 1;
  if (length == 0 || byte(0) > 0xF4 || length > text.size()) return 0;
  std::uint32_t code = byte(0) & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  // Written longer than it need be, half of a pair of UTF-16, or beyond all characters.
  const bool is_none = (length == 3 && (code < 0x800 || (code >= 0xD800 && code < 0xE000))) ||
                       (length == 4 && (code < 0x10000 || code > 0x10FFFF));
  return is_none ? 0 : length;
}

// Of one byte, or of the second block of controls, which are two.
bool is_control(std::string_view one) {
  const auto last = static_cast<unsigned char>(one.back());
  return one.size() == 1 ? last < 0x20 || last == 0x7F
                         : one.size() == 2 && one.front() == '\xC2' && last < 0xA0;
}

}  // namespace

std::string printable(std::string_view text, std::size_t longest) {
  std::string shown;
  while (!text.empty()) {
    const std::size_t found = character(text), bytes = found == 0 ? 1 : found;
    const std::string_view one = text.substr(0, bytes);
    if (shown.size() + bytes > longest) return shown + "...";
    if (found == 0 || is_control(one))
      shown += '?';
    else
      shown += one;
    text.remove_prefix(bytes);
  }
  return shown;
}

}  // namespace comigs
