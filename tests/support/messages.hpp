// What an error says, for tests of messages.
#pragma once

#include <boost/test/unit_test.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace comigs::test {

/// The message of the `Error` that `action` throws; a failed check and "" where it throws nothing or
/// something else.
template <class Error, class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& error) {
    BOOST_ERROR("another error was thrown: " << error.what());
    return {};
  }
  BOOST_ERROR("nothing was thrown");
  return {};
}

/// Checks that every part is in the text.
inline void check_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    BOOST_CHECK_MESSAGE(text.find(part) != std::string::npos, "'" << part << "' is not in: " << text);
}

}  // namespace comigs::test
