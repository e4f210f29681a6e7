#include "comigs/base/printable.hpp"

#include <algorithm>

namespace comigs {

std::string printable(std::string_view text, std::size_t longest) {
  std::string shown(text.substr(0, longest));
  const auto is_control = [](char c) { return c == 0x7f || static_cast<unsigned char>(c) < 0x20; };
  std::replace_if(shown.begin(), shown.end(), is_control, '?');
  if (text.size() > longest) shown += "...";
  return shown;
}

}  // namespace comigs
