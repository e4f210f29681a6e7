// The devices that tests run on; a card is this process's before any test runs.
#pragma once

#include <fmt/format.h>
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <string_view>
#include <vector>

#include "comigs/model/device.hpp"

namespace comigs::test {

inline const c10::Device card(c10::DeviceType::CUDA, 0);

/// For BOOST_TEST_GLOBAL_FIXTURE. Where COMIGS_REQUIRE_GPU is 1, a machine without a card fails; else what
/// needs one is skipped, and a line says so.
struct Card {
  Card() {
    const char* required = std::getenv("COMIGS_REQUIRE_GPU");
    if (model::visible_gpus() > 0 || (required != nullptr && std::string_view(required) == "1"))
      (void)model::bind_gpu(0);
    else
      fmt::print("SKIPPED: what compares a card with the host: no CUDA device is visible\n");
  }
};

/// As a precondition of what has nothing to say without a card.
inline boost::test_tools::assertion_result has_card(boost::unit_test::test_unit_id) {
  boost::test_tools::assertion_result result(model::visible_gpus() > 0);
  result.message() << "no CUDA device is visible";
  return result;
}

/// The host, and the card where there is one.
inline std::vector<c10::Device> devices() {
  std::vector<c10::Device> found = {c10::DeviceType::CPU};
  if (model::visible_gpus() > 0) found.push_back(card);
  return found;
}

}  // namespace comigs::test
