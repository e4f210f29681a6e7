// Whether a test that needs a GPU can run.
#pragma once

#include <boost/test/unit_test.hpp>

#include "comigs/model/device.hpp"

namespace comigs::test {

inline boost::test_tools::assertion_result a_card_is_there(boost::unit_test::test_unit_id) {
  boost::test_tools::assertion_result result(model::visible_gpus() > 0);
  result.message() << "no CUDA device is visible";
  return result;
}

}  // namespace comigs::test
