// The texts that configurations come from, taken apart: INI files and command lines.
#pragma once

#include "schema.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace comigs::config {

/// A line of an INI file: a section's header (`name` empty) or one of its options.
struct IniLine {
  int number = 0;  ///< from 1
  bool header = false;
  std::string section, name, value;
};

/// Takes INI text apart. '#' after a blank or at a line's start begins a comment, ';' only at a line's start.
/// Throws ConfigError for a line that is neither header, option nor comment.
[[nodiscard]] std::vector<IniLine> read_ini(std::string_view text, const std::string& file);

/// A word of the command line with its value.
struct Argument {
  enum class Kind { option, unknown, positional } kind = Kind::option;
  std::string name;   ///< without leading dashes, its words separated by dashes; empty if positional
  std::string value;  ///< "true" for a flag that is given without one
};

/// Takes a command line apart. Throws ConfigError for an option without its value.
[[nodiscard]] std::vector<Argument> read_arguments(const Schema& schema, std::vector<std::string> arguments);

}  // namespace comigs::config
