#include <map>
#include <stdexcept>
#include <string>

#include "comigs/base/error.hpp"
#include "round_rows.hpp"

namespace comigs::results {
namespace {

using io::hdf5::Dataset;
using io::hdf5::Group;

Group child(Group& parent, const std::string& name) {
  return parent.contains(name) ? parent.open_group(name) : parent.create_group(name);
}

// The dimensions of one user's factors: named, without labels, shared by its layers and experts.
class Dimensions {
 public:
  explicit Dimensions(Group& user) : user_(user) {}

  const Dataset& get(const std::string& name, std::int64_t length) {
    const auto known = lengths_.try_emplace(name, length);
    if (known.first->second != length) {
      throw std::invalid_argument(fmt::format("the dimension '{}' of stored factors is {} long and also {}",
                                              name, known.first->second, length));
    }
    if (known.second) {
      scales_.emplace(name, user_.create_dimension(name, static_cast<std::uint64_t>(length)));
    }
    return scales_.at(name);
  }

 private:
  Group& user_;
  std::map<std::string, std::int64_t> lengths_;
  std::map<std::string, Dataset> scales_;
};

void write_factor(Group& expert, Dimensions& dimensions, const FactorView& factor) {
  const auto or_default = [&](const std::string& name, const char* ending) {
    return name.empty() ? factor.name + ending : name;
  };
  const auto rows = static_cast<std::uint64_t>(factor.rows),
             columns = static_cast<std::uint64_t>(factor.columns);
  Dataset array = expert.create_dataset(factor.name, io::hdf5::Type::float32, {rows, columns});
  array.write(std::span(factor.data, rows * columns));
  array.set_attribute("units", "1");
  array.set_attribute("long_name", fmt::format("LoRA factor {}", factor.name));
  array.attach_scale(dimensions.get(or_default(factor.row_dimension, "_row"), factor.rows), 0);
  array.attach_scale(dimensions.get(or_default(factor.column_dimension, "_column"), factor.columns), 1);
}

}  // namespace

void write_weights(Group root, std::int64_t round, const std::vector<std::vector<FactorView>>& factors) {
  Group weights = child(root, "expert/weights");
  Group of_round = weights.create_group(std::to_string(round));
  for (std::size_t i = 0; i < factors.size(); ++i) {
    Group user = of_round.create_group(fmt::format("user_{}", i));
    Dimensions dimensions(user);
    for (const FactorView& factor : factors[i]) {
      Group layer = child(user, fmt::format("layer_{}", factor.layer));
      Group expert = child(layer, fmt::format("expert_{}", factor.expert));
      write_factor(expert, dimensions, factor);
    }
  }
}

}  // namespace comigs::results
