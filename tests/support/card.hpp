// What tests that need a GPU need: whether there is one, and that it is this process's before any other test
// runs.
#pragma once

#include <boost/test/unit_test.hpp>

#include <vector>

#include "comigs/model/device.hpp"

namespace comigs::test {

inline boost::test_tools::assertion_result a_card_is_there(boost::unit_test::test_unit_id) {
  boost::test_tools::assertion_result result(model::visible_gpus() > 0);
  result.message() << "no CUDA device is visible";
  return result;
}

/// For BOOST_TEST_GLOBAL_FIXTURE.
struct Card {
  Card() {
    if (model::visible_gpus() > 0) (void)model::bind_gpu(0);
  }
};

inline const c10::Device card(c10::DeviceType::CUDA, 0);

/// The host, and the card where there is one.
inline std::vector<c10::Device> devices() {
  std::vector<c10::Device> found = {c10::DeviceType::CPU};
  if (model::visible_gpus() > 0) found.push_back(card);
  return found;
}

}  // namespace comigs::test
