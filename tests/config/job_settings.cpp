// `comigs plan [JOB.ini] --settings [--OPTION VALUE ...]` and nothing else: it begins in no time, for tests
// that ask often.
#include "comigs/base/error.hpp"
#include "comigs/config/describe.hpp"

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty() || words.front() != "plan" || std::erase(words, "--settings") != 1) return 2;
  words.erase(words.begin());
  try {
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    for (const auto& [name, text] : comigs::config::settings(comigs::config::parse(words))) json[name] = text;
    std::cout << json << "\n";
  } catch (const comigs::Error& error) {
    std::cerr << "comigs: " << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
