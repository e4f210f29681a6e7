// The devices that tests run on; a card is this process's before any test runs.
#pragma once

#include <vector>

#include "comigs/model/device.hpp"

namespace comigs::test {

/// For BOOST_TEST_GLOBAL_FIXTURE.
struct Card {
  Card() {
    if (model::visible_gpus() > 0) (void)model::bind_gpu(0);
  }
};

/// The host, and the card where there is one.
inline std::vector<c10::Device> devices() {
  std::vector<c10::Device> found = {c10::DeviceType::CPU};
  if (model::visible_gpus() > 0) found.emplace_back(c10::DeviceType::CUDA, 0);
  return found;
}

}  // namespace comigs::test
