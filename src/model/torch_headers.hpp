// The precompiled header of the rooms that see LibTorch: parsing these once per room instead of once per
// file.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>
