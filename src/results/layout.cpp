#include "layout.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "columns.hpp"
#include "comigs/base/error.hpp"
#include "coordinates.hpp"

namespace comigs::results {
namespace {

using io::hdf5::Dataset;
using io::hdf5::Group;
using io::hdf5::Type;

// An array of the file; it has a row a round, a view of the round's, where its first dimension is the round.
struct ArrayDescription {
  std::string path;  // group/name
  Type type;
  std::vector<std::string> dimensions;
  std::string units, long_name;
};

std::string group_of(const std::string& path) { return path.substr(0, path.rfind('/')); }
std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

using Counts = std::vector<std::int64_t>;

// What every user was given: an array of integers, and a user's part of it.
struct UserArray {
  std::string path;
  std::string long_name;
  std::function<Counts(const UserDescription&)> of;
  std::vector<std::string> dimensions = {"user"};
};

template <class Member>
std::function<Counts(const UserDescription&)> one(Member member) {
  return [member](const UserDescription& user) { return Counts{std::invoke(member, user)}; };
}

std::vector<UserArray> user_arrays(const RoundShape& shape) {
  using User = UserDescription;
  const auto shared = [](const User& user) {
    return Counts{static_cast<std::int64_t>(user.generalists.size())};
  };
  const auto numbers = [experts = static_cast<std::size_t>(shape.experts)](const User& user) {
    Counts of_experts = user.generalists;
    of_experts.resize(experts, -1);
    return of_experts;
  };
  std::vector<UserArray> arrays{
      {"users/experts", "experts in every MLP block", one(&User::experts)},
      {"users/generalists", "experts, from expert 0 on, that are shared with other users", shared},
      {"users/generalist",
       "number of the generalist that the expert is; -1: the user's own, or none",
       numbers,
       {"user", "expert"}},
      {"users/top_k", "experts that a token is sent to", one(&User::top_k)},
      {"users/lora_rank", "rank of the LoRA factors", one(&User::expert_rank)},
      {"users/attention_rank", "rank of the LoRA factors beside attention", one(&User::attention_rank)},
      {"users/train_tokens", "tokens of the train split", one(&User::train_tokens)},
      {"users/validation_tokens", "tokens of the validation split", one(&User::validation_tokens)},
      {"users/test_tokens", "tokens of the test split", one(&User::test_tokens)},
  };
  const auto add = [&](bool given, std::vector<UserArray> some) {
    if (given) std::ranges::move(some, std::back_inserter(arrays));
  };
  const std::vector<std::string> by_category{"user", "category"};
  add(shape.categories > 0,
      {{"users/train_examples", "examples of the train split", std::mem_fn(&User::train_examples),
        by_category},
       {"users/test_examples", "examples of the test split", std::mem_fn(&User::test_examples), by_category},
       {"category/tokens_test", "response tokens of the test split", std::mem_fn(&User::test_response_tokens),
        by_category}});
  add(shape.prompts, {{"users/prompt_tokens", "prompts in each group", one(&User::prompt_tokens)},
                      {"users/prompt_layer", "layer that prompts enter", one(&User::prompt_layer)}});
  add(shape.gated, {{"users/gate_width", "hidden layer of the gate by sequence", one(&User::gate_width)}});
  return arrays;
}

// Every array but the coordinates, in the order in which the file shows them.
std::vector<ArrayDescription> arrays_of(const RunDescription& run, const RoundShape& shape) {
  std::vector<ArrayDescription> arrays;
  for (const UserArray& array : user_arrays(shape))
    arrays.push_back({array.path, Type::int64, array.dimensions, "1", array.long_name});
  for (const Column& column : columns(shape, run.train_tokens_evaluated)) {
    std::vector<std::string> dimensions = column.dimensions;
    dimensions.insert(dimensions.begin(), "user");
    if (column.each_round) dimensions.insert(dimensions.begin(), "round");
    for (const Shown& shown : column.arrays)
      arrays.push_back({shown.path, shown.type, dimensions, shown.units, shown.long_name});
  }
  return arrays;
}

void create_groups(Group& root, const std::string& path) {
  for (std::size_t end = path.find('/');; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (!root.contains(part)) {
      const Group made = root.create_group(part);
    }
    if (end == std::string::npos) {
      return;
    }
  }
}

bool has_rounds(const ArrayDescription& description) { return description.dimensions.front() == "round"; }

// Of a round, or of the whole array where it has none.
std::vector<std::uint64_t> extent_of(const ArrayDescription& description, const RoundShape& shape) {
  std::vector<std::string> dimensions = description.dimensions;
  std::erase(dimensions, "round");
  return extent_of(dimensions, shape);
}

void describe(Dataset& array, const std::string& units, const std::string& long_name) {
  array.set_attribute("units", units);
  array.set_attribute("long_name", long_name);
}

// `first`: the column of a view.
void create_array(Group& root, Coordinates& coordinates, const RoundShape& shape,
                  const ArrayDescription& description, std::uint64_t first) {
  const std::string group_path = group_of(description.path), name = name_of(description.path);
  create_groups(root, group_path);
  // Coordinates first, so that a listing shows them before what they label.
  std::vector<Dataset> scales;
  for (const std::string& dimension : description.dimensions) {
    scales.push_back(coordinates.in(group_path, dimension));
  }
  Group group = root.open_group(group_path);
  const std::vector<std::uint64_t> extent = extent_of(description, shape);
  Dataset array = has_rounds(description)
                      ? group.create_view(name, description.type, extent, rows_path, first)
                      : group.create_dataset(name, description.type, extent);
  describe(array, description.units, description.long_name);
  for (unsigned i = 0; i < scales.size(); ++i) {
    array.attach_scale(scales[i], i);
  }
}

void write_attributes(Group& root, const RunDescription& run) {
  const std::vector<std::pair<std::string, std::string>> texts{
      {"title", run.title},
      {"program_version", run.program_version},
      {"git_commit", run.git_commit},
      {"created", run.created},
      {"method", run.method},
      {"data_set", run.data_set},
      {"data_digest", run.data_digest},
      {"base_model", run.base_model},
      {"base_digest", run.base_digest},
      {"base_architecture", run.base_architecture},
      {"activations", run.activations},
      {"sequences_at_a_time", run.sequences_at_a_time},
      {"configuration", run.configuration}};
  for (const auto& [name, text] : texts) {
    root.set_attribute(name, text);
  }
  // What a run need not have.
  for (const auto& [name, text] : {std::pair("base_pruning", &run.base_pruning),
                                   std::pair("init_adapter_digest", &run.init_adapter_digest)}) {
    if (!text->empty()) {
      root.set_attribute(name, *text);
    }
  }
  std::vector<std::string> hosts, devices, libraries = run.library_versions;
  for (const UserDescription& user : run.users) {
    hosts.push_back(user.host);
    devices.push_back(user.device);
  }
  libraries.push_back(io::hdf5::library_version());
  root.set_attribute("kind", run.kind);
  if (run.gate_warmup_rounds) {
    root.set_attribute("gate_warmup_rounds", *run.gate_warmup_rounds);
    root.set_attribute("gate_targets", run.gate_targets);
  }
  root.set_attribute("schema_version", schema_version);
  root.set_attribute("seed", run.seed);
  root.set_attribute("N", static_cast<std::int64_t>(run.users.size()));
  root.set_attribute("hosts", hosts);
  root.set_attribute("devices", devices);
  root.set_attribute("library_versions", libraries);
  root.set_attribute("history", std::vector{history_entry(0, run.computed_by)});
}

void write_users(const Group& root, const RunDescription& run, const RoundShape& shape) {
  for (const UserArray& array : user_arrays(shape)) {
    Counts values;
    for (const UserDescription& user : run.users) {
      const Counts own = array.of(user);
      values.insert(values.end(), own.begin(), own.end());
    }
    root.open_dataset(array.path).write(values);
  }
}

}  // namespace

std::vector<RowPart> row_parts(const RunDescription& run, const RoundShape& shape) {
  std::vector<RowPart> parts{{.path = "round", .first = 0, .count = 1}};
  for (const ArrayDescription& array : arrays_of(run, shape)) {
    if (!has_rounds(array)) continue;
    const std::uint64_t first = parts.back().first + parts.back().count;
    parts.push_back({array.path, first, product(extent_of(array, shape))});
  }
  return parts;
}

void lay_out_rows(Group root, const RunDescription& run, const RoundShape& shape) {
  const RowPart last = row_parts(run, shape).back();
  const std::string home = group_of(rows_path);
  create_groups(root, home.substr(1));
  const auto rows = static_cast<std::uint64_t>(std::max<std::int64_t>(run.rounds, 0)) + 1;
  const Dataset made =
      root.open_group(home).create_growing(name_of(rows_path), last.first + last.count, rows);
}

void lay_out(Group root, const RunDescription& run, const RoundShape& shape) {
  write_attributes(root, run);
  Coordinates coordinates(root.open_group("/"), run, shape);
  const std::vector<RowPart> parts = row_parts(run, shape);
  auto viewed = parts.begin();
  for (const ArrayDescription& array : arrays_of(run, shape)) {
    create_array(root, coordinates, shape, array, has_rounds(array) ? (++viewed)->first : 0);
  }
  Dataset rows = root.open_dataset(rows_path);
  const std::string home = group_of(rows_path);
  describe(rows, "1", "what all arrays have of the round, one after the other; they are views of this one");
  rows.attach_scale(coordinates.in(home, "round"), 0);
  rows.attach_scale(root.open_group(home).create_dimension("column", rows.extent().at(1)), 1);
  write_users(root, run, shape);
}

void settle_lengths(const Group& root, const RunDescription& run, const RoundShape& shape) {
  // The library writes what it finds.
  for (const RowPart& part : row_parts(run, shape)) (void)root.open_dataset(part.path).extent();
}

void check_laid_out(const Group& root, const RunDescription& run, const RoundShape& shape) {
  const std::vector<std::uint64_t> found = root.open_dataset(rows_path).extent();
  const auto check = [&](const std::string& path, Type type, std::vector<std::uint64_t> extent,
                         bool growing) {
    if (growing) extent.insert(extent.begin(), found.empty() ? 0 : found[0]);
    if (!root.open_dataset(path).is_as_made(type, extent, growing)) {
      throw IoError(fmt::format("'{}' is not as it was made: nothing can be added", path));
    }
  };
  const std::vector<RowPart> parts = row_parts(run, shape);
  check(rows_path, Type::float64, {parts.back().first + parts.back().count}, true);
  check("round", Type::int64, {}, true);
  for (const ArrayDescription& array : arrays_of(run, shape)) {
    check(array.path, array.type, extent_of(array, shape), has_rounds(array));
  }
}

}  // namespace comigs::results
