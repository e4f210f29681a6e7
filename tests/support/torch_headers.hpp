// The precompiled header of tests that see LibTorch.
#pragma once

#include "../../src/model/torch_headers.hpp"

#include <boost/test/unit_test.hpp>
