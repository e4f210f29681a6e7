// Standard output: what a command prints, and whether it arrived.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace comigs {

/// Whatever this process was given: files that it opens never get the numbers of standard input, output and
/// error, into which they would be printed. What is printed where one was closed fails. First thing in main.
void open_standard_streams();

/// Prints and flushes. Never throws: work goes on where nobody listens any more, and `output_error` tells.
void print_out(std::string_view text) noexcept;
template <class... Values>
void print_out(fmt::format_string<Values...> format, Values&&... values) {
  print_out(std::string_view(fmt::format(format, std::forward<Values>(values)...)));
}

/// The errno by which the first `print_out` that did not arrive failed; 0: all of them did.
[[nodiscard]] int output_error() noexcept;

/// Prints to standard error, whether that works or not.
void print_error(std::string_view text) noexcept;

}  // namespace comigs
