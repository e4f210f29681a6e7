// The dimensions of results.h5 and the labels along them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "comigs/io/hdf5.hpp"
#include "comigs/results/results_file.hpp"

namespace comigs::results {

/// Makes the labels of each dimension once. Every group that uses a dimension gets a link to them under its
/// name: readers that look into one group only, as xarray does, find the labels there.
class Coordinates {
 public:
  /// Makes the labels of round, user and layer in the root; the others live in the first group that uses
  /// them, because the root has groups named "expert" and "category".
  Coordinates(io::hdf5::Group root, const RunDescription& run, const RoundShape& shape);

  /// The labels of `dimension` for arrays of `group`.
  [[nodiscard]] io::hdf5::Dataset in(const std::string& group, const std::string& dimension);

 private:
  void create(io::hdf5::Group place, const std::string& dimension);
  void create_numbers(io::hdf5::Group& place, const std::string& dimension, const std::string& long_name);

  io::hdf5::Group root_;
  std::vector<std::string> user_names_;
  RoundShape shape_;
  std::vector<std::string> projections_, categories_;
  std::map<std::string, std::string> homes_;  // absolute paths
};

}  // namespace comigs::results
