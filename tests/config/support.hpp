// What the tests of this room share: complete configurations, and what an error says.
#pragma once

#include "comigs/base/error.hpp"
#include "comigs/config/option.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"

#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace comigs::config::test {

using Words = std::vector<std::string>;

/// The words with the options that every job must have, put first.
inline Words with_required(const Words& words) {
  Words all{"--output", "out", "--data", "texts", "--model", "base"};
  all.insert(all.end(), words.begin(), words.end());
  return all;
}

inline Config from_words(const Words& words, std::int64_t users = 4) {
  return resolve(parse(with_required(words)), users);
}

inline Config from_text(const std::string& ini, const Words& words = {}, std::int64_t users = 4) {
  Layered layered = parse_text(ini, "job.ini");
  const Layered above = parse(with_required(words));
  layered.settings.insert(layered.settings.end(), above.settings.begin(), above.settings.end());
  return resolve(layered, users);
}

/// The message of the ConfigError that `action` throws; a failed test where it throws none.
template <class Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    BOOST_TEST((error.exit_code() == ExitCode::bad_input));
    return error.what();
  }
  BOOST_ERROR("no ConfigError was thrown");
  return {};
}

inline std::string words_error(const Words& words) {
  return error_of([&] { (void)from_words(words); });
}

inline std::string text_error(const std::string& ini) {
  return error_of([&] { (void)from_text(ini); });
}

inline std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A job file that is gone with the test.
class JobFile {
 public:
  explicit JobFile(const std::string& text) {
    std::string pattern = (std::filesystem::temp_directory_path() / "comigs-config-XXXXXX").string();
    BOOST_REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    std::ofstream(path(), std::ios::binary) << text;
  }
  JobFile(const JobFile&) = delete;
  JobFile& operator=(const JobFile&) = delete;
  ~JobFile() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  [[nodiscard]] std::string path() const { return (folder_ / "job.ini").string(); }

 private:
  std::filesystem::path folder_;
};

/// A value that the option accepts and that differs from its default.
template <class Record>
std::string other_value(const Option<Record>& option) {
  for (const char* value :
       {"3", "0.5", "0.25", "true", "false", "cuda", "bf16", "auto", "continue", "uniform", "tokens",
        "published", "renewals", "clusters", "own", "train+validation", "another name"}) {
    if (option.info.accepts(value, option.info.range) && option.print(Record{}) != value) return value;
  }
  BOOST_FAIL("no other value is known for " << option.info.name);
  return {};
}

}  // namespace comigs::config::test
