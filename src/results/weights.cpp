#include <map>
#include <set>
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

// The group of a round: <role>/weights/<round>.
Group round_group(Group& root, const std::string& role, std::int64_t round) {
  Group of_role = child(root, role);
  Group weights =
      of_role.contains("weights") ? of_role.open_group("weights") : of_role.create_sorted_group("weights");
  return child(weights, std::to_string(round));
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

void write_parameter(Group& place, Dimensions& dimensions, const ParameterView& parameter) {
  const auto or_default = [&](const std::string& name, const char* ending) {
    return name.empty() ? parameter.name + ending : name;
  };
  const auto rows = static_cast<std::uint64_t>(parameter.rows),
             columns = static_cast<std::uint64_t>(parameter.columns);
  const std::span values(parameter.data, rows * columns);
  // A run that was killed before the round's row was there may have left them.
  if (place.contains(parameter.name)) return place.open_dataset(parameter.name).write(values);
  Dataset array = place.create_dataset(parameter.name, io::hdf5::Type::float32, {rows, columns});
  array.write(values);
  array.set_attribute("units", "1");
  array.set_attribute("long_name", fmt::format("{} {}", parameter.role, parameter.name));
  array.attach_scale(dimensions.get(or_default(parameter.row_dimension, "_row"), parameter.rows), 0);
  array.attach_scale(dimensions.get(or_default(parameter.column_dimension, "_column"), parameter.columns), 1);
}

// One user's parameters of one role: <role>/weights/<round>/user_<i>/layer_<l>[/expert_<e>]/<name>.
void write_role(Group& user, const std::string& role, const std::vector<ParameterView>& parameters) {
  Dimensions dimensions(user);
  for (const ParameterView& parameter : parameters) {
    if (parameter.role != role) continue;
    Group place = child(user, fmt::format("layer_{}", parameter.layer));
    if (parameter.expert >= 0) place = child(place, fmt::format("expert_{}", parameter.expert));
    write_parameter(place, dimensions, parameter);
  }
}

}  // namespace

void write_weights(Group root, std::int64_t round,
                   const std::vector<std::vector<ParameterView>>& parameters) {
  std::set<std::string> roles;
  for (const auto& of_user : parameters)
    for (const ParameterView& parameter : of_user) roles.insert(parameter.role);
  // All of these first: what changes before the end of the file lies together.
  std::map<std::string, Group> groups;
  for (const std::string& role : roles) groups.emplace(role, round_group(root, role, round));
  for (auto& [role, of_round] : groups) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      Group user = child(of_round, fmt::format("user_{}", i));
      write_role(user, role, parameters[i]);
    }
  }
}

void read_weights(const Group& root, std::int64_t round, std::size_t user,
                  const std::vector<ParameterView>& parameters, std::span<float> block) {
  for (const ParameterView& parameter : parameters) {
    const std::string expert = parameter.expert >= 0 ? fmt::format("expert_{}/", parameter.expert) : "";
    const std::string path = fmt::format("{}/weights/{}/user_{}/layer_{}/{}{}", parameter.role, round, user,
                                         parameter.layer, expert, parameter.name);
    if (!root.contains(path)) throw IoError(fmt::format("'{}' is missing", path));
    const Dataset array = root.open_dataset(path);
    const std::vector<std::uint64_t> expected{static_cast<std::uint64_t>(parameter.rows),
                                              static_cast<std::uint64_t>(parameter.columns)};
    if (const std::vector<std::uint64_t> found = array.extent(); found != expected)
      throw IoError(fmt::format("'{}' has the shape [{}], expected [{}]", path, fmt::join(found, ", "),
                                fmt::join(expected, ", ")));
    const std::size_t count = expected[0] * expected[1];
    array.read(block.first(count));
    block = block.subspan(count);
  }
}

}  // namespace comigs::results
