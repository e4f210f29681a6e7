#include "layout.hpp"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

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

const std::vector<std::string> by_user{"user"};
const std::vector<std::string> by_round_and_user{"round", "user"};

std::string group_of(const std::string& path) { return path.substr(0, path.rfind('/')); }
std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void add_user_arrays(std::vector<ArrayDescription>& arrays) {
  arrays.push_back({"users/experts", Type::int64, by_user, "1", "experts in every MLP block"});
  arrays.push_back({"users/generalists", Type::int64, by_user, "1",
                    "experts, from expert 0 on, that are shared with other users"});
  arrays.push_back({"users/generalist",
                    Type::int64,
                    {"user", "expert"},
                    "1",
                    "number of the generalist that the expert is; -1: the user's own, or none"});
  arrays.push_back({"users/top_k", Type::int64, by_user, "1", "experts that a token is sent to"});
  arrays.push_back({"users/lora_rank", Type::int64, by_user, "1", "rank of the LoRA factors"});
  for (const std::string split : {"train", "validation", "test"}) {
    arrays.push_back(
        {"users/" + split + "_tokens", Type::int64, by_user, "1", "tokens of the " + split + " split"});
  }
}

void add_evaluation(std::vector<ArrayDescription>& arrays, const std::string& group,
                    const std::vector<std::string>& dimensions, const std::string& split,
                    const std::string& tokens_and_moment) {
  arrays.push_back(
      {group + "perplexity/" + split, Type::float64, dimensions, "1", "perplexity on " + tokens_and_moment});
  arrays.push_back({group + "loss/" + split, Type::float64, dimensions, "nat",
                    "mean cross entropy a token on " + tokens_and_moment});
}

void add_evaluations(std::vector<ArrayDescription>& arrays, const std::string& train_tokens_evaluated) {
  const std::string after = ", after the round's aggregation", before = ", before the last aggregation";
  add_evaluation(arrays, "", by_round_and_user, "train", train_tokens_evaluated + after);
  for (const std::string split : {"validation", "test"}) {
    const std::string tokens = "the whole " + split + " split";
    add_evaluation(arrays, "", by_round_and_user, split, tokens + after);
    add_evaluation(arrays, "before_aggregation/", by_user, split, tokens + before);
  }
}

void add_expert_arrays(std::vector<ArrayDescription>& arrays) {
  const std::vector<std::string> by_expert{"round", "user", "layer", "expert"};
  arrays.push_back(
      {"routing/score", Type::float32, by_expert, "1", "mean gate weight over the tokens of the test split"});
  arrays.push_back({"routing/load", Type::float32, by_expert, "1",
                    "fraction of the tokens of the test split with the expert in their top-k"});
  arrays.push_back(
      {"routing/entropy",
       Type::float32,
       {"round", "user", "layer"},
       "nat",
       "mean entropy of the gate over the tokens of the test split; top-1 of several experts: of "
       "the softmax over all of them"});
  arrays.push_back({"expert/update_norm",
                    Type::float32,
                    {"round", "user", "layer", "expert", "projection"},
                    "1",
                    "Frobenius norm of the expert's update, gamma B A"});
  arrays.push_back({"aggregation/weight",
                    Type::float32,
                    {"round", "user", "source_user"},
                    "1",
                    "weight of source_user's shared parameters in user's new ones"});
  arrays.push_back({"aggregation/lora_rank", Type::int64, by_round_and_user, "1",
                    "ranks of the LoRA factors in use after the round (HetLoRA prunes)"});
}

void add_costs(std::vector<ArrayDescription>& arrays) {
  const std::vector<std::pair<std::string, std::string>> phases{
      {"experts", "training the experts"},
      {"routers", "training the routers"},
      {"aggregation", "the aggregation"},
      {"evaluation", "the evaluation"},
      {"checkpoint", "writing the checkpoint"},
      {"writing", "writing results, since the row before was whole"},
      {"total", "the whole round"}};
  for (const auto& [phase, words] : phases) {
    arrays.push_back({"time/" + phase, Type::float64, by_round_and_user, "s", "wall-clock time of " + words});
  }
  arrays.push_back({"aggregation/participation", Type::int64, by_round_and_user, "1",
                    "1: the user took part in the round; 0: its training had failed and it had dropped out"});
  arrays.push_back(
      {"communication/bytes", Type::int64, by_round_and_user, "byte", "payload sent in the aggregation"});
  arrays.push_back({"memory/peak", Type::int64, by_round_and_user, "byte",
                    "most device memory, or resident memory without a device, so far"});
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
  std::vector<std::uint64_t> extent;
  for (const std::string& dimension : description.dimensions) {
    if (dimension != "round") {
      extent.push_back(length_of(dimension, shape));
    }
  }
  return extent;
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
  std::vector<std::string> hosts, devices, libraries = run.library_versions;
  for (const UserDescription& user : run.users) {
    hosts.push_back(user.host);
    devices.push_back(user.device);
  }
  libraries.push_back(io::hdf5::library_version());
  root.set_attribute("schema_version", schema_version);
  root.set_attribute("seed", run.seed);
  root.set_attribute("N", static_cast<std::int64_t>(run.users.size()));
  root.set_attribute("hosts", hosts);
  root.set_attribute("devices", devices);
  root.set_attribute("library_versions", libraries);
  root.set_attribute("history", std::vector{history_entry(0, run.computed_by)});
}

// [user, expert]
std::vector<std::int64_t> generalist_numbers(const std::vector<UserDescription>& users,
                                             std::int64_t experts) {
  std::vector<std::int64_t> numbers;
  for (const UserDescription& user : users) {
    numbers.insert(numbers.end(), user.generalists.begin(), user.generalists.end());
    numbers.insert(numbers.end(), static_cast<std::size_t>(experts) - user.generalists.size(), -1);
  }
  return numbers;
}

void write_users(Group& root, const std::vector<UserDescription>& users, std::int64_t experts) {
  const auto write = [&](const std::string& name, auto member) {
    std::vector<std::int64_t> values;
    for (const UserDescription& user : users) {
      values.push_back(static_cast<std::int64_t>(std::invoke(member, user)));
    }
    root.open_dataset("users/" + name).write(values);
  };
  write("experts", &UserDescription::experts);
  write("generalists", [](const UserDescription& user) { return user.generalists.size(); });
  root.open_dataset("users/generalist").write(generalist_numbers(users, experts));
  write("top_k", &UserDescription::top_k);
  write("lora_rank", &UserDescription::lora_rank);
  write("train_tokens", &UserDescription::train_tokens);
  write("validation_tokens", &UserDescription::validation_tokens);
  write("test_tokens", &UserDescription::test_tokens);
}

// Every array but the coordinates, in the order in which the file shows them.
std::vector<ArrayDescription> arrays_of(const RunDescription& run) {
  std::vector<ArrayDescription> arrays;
  add_user_arrays(arrays);
  add_evaluations(arrays, run.train_tokens_evaluated);
  add_expert_arrays(arrays);
  add_costs(arrays);
  return arrays;
}

}  // namespace

std::vector<Columns> row_columns(const RunDescription& run, const RoundShape& shape) {
  std::vector<Columns> columns{{.path = "round", .first = 0, .count = 1}};
  for (const ArrayDescription& array : arrays_of(run)) {
    if (!has_rounds(array)) continue;
    std::uint64_t count = 1;
    for (const std::uint64_t length : extent_of(array, shape)) count *= length;
    columns.push_back({array.path, columns.back().first + columns.back().count, count});
  }
  return columns;
}

void lay_out_rows(Group root, const RunDescription& run, const RoundShape& shape) {
  const Columns last = row_columns(run, shape).back();
  const std::string home = group_of(rows_path);
  create_groups(root, home.substr(1));
  const auto rows = static_cast<std::uint64_t>(std::max<std::int64_t>(run.rounds, 0)) + 1;
  const Dataset made =
      root.open_group(home).create_growing(name_of(rows_path), last.first + last.count, rows);
}

void lay_out(Group root, const RunDescription& run, const RoundShape& shape) {
  write_attributes(root, run);
  Coordinates coordinates(root.open_group("/"), run, shape);
  const std::vector<Columns> columns = row_columns(run, shape);
  auto viewed = columns.begin();
  for (const ArrayDescription& array : arrays_of(run)) {
    create_array(root, coordinates, shape, array, has_rounds(array) ? (++viewed)->first : 0);
  }
  Dataset rows = root.open_dataset(rows_path);
  const std::string home = group_of(rows_path);
  describe(rows, "1", "what all arrays have of the round, one after the other; they are views of this one");
  rows.attach_scale(coordinates.in(home, "round"), 0);
  rows.attach_scale(root.open_group(home).create_dimension("column", rows.extent().at(1)), 1);
  write_users(root, run.users, shape.experts);
}

void settle_lengths(const Group& root, const RunDescription& run, const RoundShape& shape) {
  // The library writes what it finds.
  for (const Columns& columns : row_columns(run, shape)) (void)root.open_dataset(columns.path).extent();
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
  const std::vector<Columns> columns = row_columns(run, shape);
  check(rows_path, Type::float64, {columns.back().first + columns.back().count}, true);
  check("round", Type::int64, {}, true);
  for (const ArrayDescription& array : arrays_of(run)) {
    check(array.path, array.type, extent_of(array, shape), has_rounds(array));
  }
}

}  // namespace comigs::results
