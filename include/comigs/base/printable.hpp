// Text from files and command lines, in messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace comigs {

/// The text as a message may show it: control characters and what is no UTF-8 as '?', no longer than
/// `longest` bytes (and "..."), so that what a file holds can neither break a message into lines nor drive a
/// terminal.
[[nodiscard]] std::string printable(std::string_view text, std::size_t longest = 80);

}  // namespace comigs
