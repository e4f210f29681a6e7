// The option tables: constant data from which parsing, checking, echo, digest and help are made.
#pragma once

#include "comigs/config/config.hpp"
#include "comigs/config/evaluate.hpp"
#include "comigs/config/generate.hpp"
#include "comigs/config/pretrain.hpp"
#include "comigs/config/prune.hpp"
#include "comigs/config/route.hpp"
#include "comigs/config/value.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace comigs::config {

/// What few options need; the rest go by the defaults.
struct Extra {
  std::string_view flag = {};      ///< name on the command line where it is not the option's own with dashes
  bool required = false;           ///< may not be empty
  bool determines_numbers = true;  ///< a run and its resumption must agree on it
  bool is_of_rank = false;         ///< ranks of a run need not
};

/// One option, whatever record it belongs to.
struct OptionInfo {
  std::string_view section, name;  ///< in an INI file; snake_case
  std::string_view value;          ///< stands for the value in the help text, as its unit where it has one
  std::string_view help;
  Range range = {};
  Extra extra = {};
  bool is_flag = false;  ///< boolean: on the command line its value may be left out
  bool is_word = false;  ///< one of few words, which the help text lists
  bool is_number = false;
  std::string (*type)() = nullptr;
  bool (*accepts)(std::string_view text, const Range& range) = nullptr;

  /// Name on the command line, without the leading dashes.
  [[nodiscard]] std::string flag() const;
  /// "an integer from 1 to 64"
  [[nodiscard]] std::string expected() const { return type() + range_words(range); }
};

/// One option of a record: how to set it from a text that `info.accepts`, and how to print it.
template <class Record>
struct Option {
  OptionInfo info;
  void (*set)(Record& record, std::string_view text) = nullptr;
  std::string (*print)(const Record& record) = nullptr;
};

struct Section {
  std::string_view name, help;
};

/// All options of a record, in the order of help and echo.
template <class Record>
struct Table {
  std::span<const Section> sections;
  std::span<const Option<Record>> options;
  std::string_view per_user =
      {};  ///< section whose options [SECTION.i] and list values give by user; empty: none
  std::string_view positional = "job file";  ///< what a word without a name is on the command line
};

/// A job as one of its users sees it: the configuration (its `users` unused) and that user's own part.
struct UserJob {
  Config common;
  User user;
};

[[nodiscard]] Table<UserJob> job_table();
[[nodiscard]] Table<Pretrain> pretrain_table();
[[nodiscard]] Table<Prune> prune_table();
[[nodiscard]] Table<Route> route_table();
[[nodiscard]] Table<Evaluate> evaluate_table();
[[nodiscard]] Table<Generate> generate_table();

/// A section of a table: its name, and the members that lead from the record to the struct that it fills.
template <class Record, auto... Path>
struct Group {
  std::string_view section;

  /// The value of `Member` inside the record.
  template <auto Member>
  [[nodiscard]] static constexpr auto& follow(auto& record) {
    return (record.*....*Path).*Member;  // record.*common.*run.*rounds
  }

  template <auto Member>
  [[nodiscard]] constexpr Option<Record> option(std::string_view name, std::string_view value,
                                                std::string_view help, Range range = {},
                                                Extra extra = {}) const {
    using Value = std::remove_cvref_t<decltype(follow<Member>(std::declval<Record&>()))>;
    Option<Record> option;
    option.info = {
        .section = section, .name = name, .value = value, .help = help, .range = range, .extra = extra};
    option.info.is_flag = std::is_same_v<Value, bool>;
    option.info.is_word = std::is_enum_v<Value>;
    option.info.is_number = std::is_arithmetic_v<Value> && !std::is_same_v<Value, bool>;
    option.info.type = &type_words<Value>;
    option.info.accepts = [](std::string_view text, const Range& allowed) {
      Value found{};
      if (!read(text, found)) return false;
      if constexpr (std::is_arithmetic_v<Value>) return allowed.contains(static_cast<double>(found));
      if constexpr (requires { found.has_value(); })
        return !found || allowed.contains(static_cast<double>(*found));
      return true;
    };
    option.set = [](Record& record, std::string_view text) { (void)read(text, follow<Member>(record)); };
    option.print = [](const Record& record) { return config::print(follow<Member>(record)); };
    return option;
  }
};

}  // namespace comigs::config
