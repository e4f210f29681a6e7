#include "comigs/results/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/io/removal.hpp"
#include "comigs/io/safetensors.hpp"

namespace comigs::results {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::string_view format_name = "comigs-checkpoint";
constexpr std::int64_t format_version = 2;
constexpr std::size_t digits = 6;
constexpr std::size_t most_manifest_bytes = std::size_t{1} << 26;
constexpr std::size_t most_reason_bytes = 200;
constexpr const char* manifest_name = "manifest.json";

fs::path part_path(const fs::path& set, std::size_t user) {
  return set / fmt::format("user_{}.safetensors", user);
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

bool is_part_name(std::string_view name) {
  constexpr std::string_view before = "user_", after = ".safetensors";
  return name.size() > before.size() + after.size() && name.starts_with(before) && name.ends_with(after) &&
         is_number(name.substr(before.size(), name.size() - before.size() - after.size()));
}

/// Whether it is a name that a write which did not end has left.
bool is_temporary_name(const std::string& name) {
  if (io::is_temporary_of(name, manifest_name)) return true;
  const std::size_t end = name.rfind(".safetensors.");
  constexpr std::size_t ending = std::string_view(".safetensors").size();
  if (end == name.npos || !name.starts_with('.')) return false;
  const std::string target = name.substr(1, end - 1 + ending);
  return is_part_name(target) && io::is_temporary_of(name, target);
}

/// Names of all files that a set may have.
bool is_name_in_set(const std::string& name) {
  return name == manifest_name || is_part_name(name) || is_temporary_name(name);
}

/// Whether a user's file is one that `write_part` wrote: others have files of that name, too.
bool is_part(const fs::path& file) {
  try {
    const io::SafetensorsFile part(file);
    return part.find("position") != nullptr && part.find("aggregation") != nullptr &&
           part.find("record") != nullptr && part.find("start") != nullptr;
  } catch (const Error&) {
    return false;
  }
}

bool is_manifest(const fs::path& file) {
  try {
    const io::MappedFile content(file);
    const Json root = io::parse_json(content.bytes(), file.string(), most_manifest_bytes);
    return root.is_object() && root.value("format", Json()) == format_name;
  } catch (const Error&) {
    return false;
  }
}

/// Whether a folder of a set's name is one that a run made: its manifest says so, or, where that is not yet
/// there or is damaged, nothing but files of a set is in it and one of them can only be ours.
bool is_set(const fs::path& folder) {
  std::error_code none;
  if (fs::is_regular_file(fs::symlink_status(folder / manifest_name, none)) &&
      is_manifest(folder / manifest_name))
    return true;
  if (!io::holds_only(folder, is_name_in_set)) return false;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (is_temporary_name(name) || (is_part_name(name) && is_part(entry.path()))) return true;
  }
  return false;
}

/// The number in a set's name; nothing for any other name.
std::optional<std::int64_t> number_of(const fs::path& entry) {
  const std::string name = entry.filename().string();
  if (name.size() < digits || name.size() > 2 * digits || !is_number(name)) return std::nullopt;
  return std::stoll(name);
}

/// All sets, complete or not, newest first. People have folders with numbers for names, too: those of dates.
std::vector<fs::path> all_sets(const fs::path& checkpoints) {
  std::vector<fs::path> sets;
  std::error_code none;
  for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints, none))
    if (number_of(entry.path()) && fs::is_directory(entry.symlink_status(none)) && is_set(entry.path()))
      sets.push_back(entry.path());
  std::ranges::sort(sets, std::ranges::greater(), [](const fs::path& set) { return *number_of(set); });
  return sets;
}

bool is_complete(const fs::path& set) { return fs::is_regular_file(fs::symlink_status(set / manifest_name)); }

std::string text_of(const Json& root) {
  return root.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// Of all entries but the digest itself, which come in the order of their names.
std::string digest_of(Json root) {
  root.erase("sha256");
  return sha256(text_of(root));
}

template <class Value>
io::NamedTensor tensor(std::string name, io::Dtype dtype, std::span<const Value> values) {
  return {std::move(name), {dtype, {static_cast<std::int64_t>(values.size())}, std::as_bytes(values)}};
}

/// The numbers of a tensor, which must be there, of this type and one-dimensional.
template <class Value>
std::span<const Value> values_of(const io::SafetensorsFile& file, const fs::path& path, std::string_view name,
                                 io::Dtype dtype) {
  const io::TensorView& found = file.at(name);
  if (found.dtype != dtype || found.shape.size() != 1 || !found.is_aligned())
    throw DataError(fmt::format("{}: tensor '{}' is no row of {}", path.string(), name, io::name_of(dtype)));
  return {reinterpret_cast<const Value*>(found.data()), static_cast<std::size_t>(found.elements())};
}

/// Stage, steps, ranks in use, participation.
std::span<const std::int64_t> position_in(const io::SafetensorsFile& file, const fs::path& path) {
  const auto position = values_of<std::int64_t>(file, path, "position", io::Dtype::int64);
  constexpr auto last_stage = static_cast<std::int64_t>(Stage::evaluated);
  if (position.size() != 4 || position[0] < 0 || position[0] > last_stage || position[1] < 0)
    throw DataError(fmt::format("{}: 'position' is none", path.string()));
  return position;
}

UserRound read_record(const io::SafetensorsFile& file, const fs::path& path, std::string_view name,
                      const RoundShape& shape) {
  try {
    return decode(values_of<double>(file, path, name, io::Dtype::float64), shape);
  } catch (const std::invalid_argument& error) {
    throw DataError(fmt::format("{}: '{}': {}", path.string(), name, error.what()));
  }
}

void check_part(const fs::path& path, const io::MappedFile& file, const CheckpointPart& part) {
  if (file.size_bytes() != part.bytes)
    throw DataError(fmt::format("{}: {} bytes, expected {}", path.string(), file.size_bytes(), part.bytes));
  if (sha256(file.bytes()) != part.sha256)
    throw DataError(
        fmt::format("{}: damaged; its digest is not the one in {}", path.string(), manifest_name));
}

}  // namespace

CheckpointPart write_part(const fs::path& set, std::size_t user, const UserStanding& state,
                          std::span<const StateBlock> blocks, const RoundShape& shape) {
  std::error_code failed;
  fs::create_directories(set, failed);
  if (failed) throw IoError(fmt::format("cannot make the folder '{}': {}", set.string(), failed.message()));
  const std::array<std::int64_t, 4> position = {static_cast<std::int64_t>(state.progress.stage),
                                                state.progress.steps, state.ranks_in_use, state.participates};
  const std::vector<double> record = encode(state.progress.record, shape), start = encode(state.start, shape);
  std::vector<io::NamedTensor> tensors = {
      tensor("position", io::Dtype::int64, std::span<const std::int64_t>(position)),
      tensor("aggregation", io::Dtype::float64, std::span<const double>(state.aggregation)),
      tensor("record", io::Dtype::float64, std::span<const double>(record)),
      tensor("start", io::Dtype::float64, std::span<const double>(start))};
  for (const StateBlock& block : blocks)
    tensors.push_back(tensor(block.name, io::Dtype::float32, std::span<const float>(block.values)));
  const fs::path path = part_path(set, user);
  io::write_safetensors(path, tensors);
  const io::MappedFile written(path);
  return {.bytes = written.size_bytes(), .sha256 = sha256(written.bytes())};
}

void write_manifest(const fs::path& set, const CheckpointManifest& manifest) {
  Json users = Json::array();
  for (std::size_t user = 0; user < manifest.parts.size(); ++user)
    users.push_back({{"name", manifest.identity.users.at(user)},
                     {"bytes", manifest.parts[user].bytes},
                     {"sha256", manifest.parts[user].sha256}});
  Json root = {{"format", format_name},
               {"version", format_version},
               {"round", manifest.round},
               {"configuration", manifest.identity.configuration},
               {"data_digest", manifest.identity.data_digest},
               {"base_digest", manifest.identity.base_digest},
               {"init_adapter_digest", manifest.identity.init_adapter_digest},
               {"base_architecture", manifest.identity.base_architecture},
               {"activations", manifest.identity.activations},
               {"sequences_at_a_time", manifest.identity.sequences_at_a_time},
               {"users", users}};
  root["sha256"] = digest_of(root);
  io::write_atomically(set / manifest_name, text_of(root));
  io::synchronise_folder(set.parent_path());
}

fs::path next_set(const fs::path& checkpoints) {
  const std::vector<fs::path> sets = all_sets(checkpoints);
  std::int64_t number = sets.empty() ? 0 : *number_of(sets.front());
  fs::path next;
  std::error_code none;
  do {
    next = checkpoints / fmt::format("{:0{}}", ++number, digits);
  } while (fs::exists(fs::symlink_status(next, none)));
  return next;
}

std::vector<fs::path> complete_sets(const fs::path& checkpoints) {
  std::vector<fs::path> sets = all_sets(checkpoints);
  std::erase_if(sets, [](const fs::path& set) { return !is_complete(set); });
  return sets;
}

void remove_set(const fs::path& set) {
  // Without its manifest it is no set any more, however far the rest comes.
  std::error_code ignored;
  fs::remove(set / manifest_name, ignored);
  io::remove_ours(set, is_name_in_set);
}

void keep_newest_sets(const fs::path& checkpoints, std::size_t count) {
  const std::vector<fs::path> complete = complete_sets(checkpoints);
  for (const fs::path& set : all_sets(checkpoints)) {
    const auto place = std::find(complete.begin(), complete.end(), set) - complete.begin();
    if (static_cast<std::size_t>(place) < std::min(count, complete.size())) continue;
    remove_set(set);
  }
}

CheckpointManifest read_manifest(const fs::path& set) {
  const fs::path path = set / manifest_name;
  const io::MappedFile file(path);
  const auto wrong = [&](std::string_view what) {
    return DataError(fmt::format("{}: not the manifest of a checkpoint: {}", path.string(), what));
  };
  const Json root = io::parse_json(file.bytes(), path.string(), most_manifest_bytes);
  if (!root.is_object()) throw wrong("no JSON object");
  try {
    if (root.at("format").get<std::string>() != format_name) throw wrong("another format");
    if (root.at("version").get<std::int64_t>() != format_version)
      throw wrong(
          fmt::format("version {}, expected {}", printable(root.at("version").dump()), format_version));
    CheckpointManifest manifest{.identity = {.configuration = root.at("configuration").get<std::string>(),
                                             .data_digest = root.at("data_digest").get<std::string>(),
                                             .base_digest = root.at("base_digest").get<std::string>(),
                                             .init_adapter_digest = root.value("init_adapter_digest", ""),
                                             .base_architecture = root.value("base_architecture", ""),
                                             .activations = root.value("activations", ""),
                                             .sequences_at_a_time = root.value("sequences_at_a_time", ""),
                                             .users = {}},
                                .round = root.at("round").get<std::int64_t>(),
                                .parts = {}};
    for (const Json& user : root.at("users")) {
      manifest.identity.users.push_back(user.at("name").get<std::string>());
      manifest.parts.push_back(
          {.bytes = user.at("bytes").get<std::uint64_t>(), .sha256 = user.at("sha256").get<std::string>()});
    }
    if (root.at("sha256").get<std::string>() != digest_of(root)) throw wrong("its own digest is another one");
    return manifest;
  } catch (const Json::exception& error) {
    const std::string_view reason = error.what();  // "[json.exception.type_error.302] type must be ..."
    throw wrong(printable(reason.substr(std::min(reason.find("] ") + 2, reason.size())), most_reason_bytes));
  }
}

UserStanding read_part(const fs::path& set, std::size_t user, const CheckpointPart& part,
                       std::span<const StateBlock> blocks, const RoundShape& shape) {
  const fs::path path = part_path(set, user);
  check_part(path, io::MappedFile(path), part);
  const io::SafetensorsFile file(path);
  const auto position = position_in(file, path);
  const auto aggregation = values_of<double>(file, path, "aggregation", io::Dtype::float64);
  for (const StateBlock& block : blocks) {
    const auto values = values_of<float>(file, path, block.name, io::Dtype::float32);
    if (values.size() != block.values.size())
      throw DataError(fmt::format("{}: '{}' has {} numbers, expected {}", path.string(), block.name,
                                  values.size(), block.values.size()));
    std::memcpy(block.values.data(), values.data(), values.size_bytes());
  }
  return {.progress = {.stage = static_cast<Stage>(position[0]),
                       .steps = position[1],
                       .record = read_record(file, path, "record", shape)},
          .start = read_record(file, path, "start", shape),
          .ranks_in_use = position[2],
          .participates = position[3],
          .aggregation = {aggregation.begin(), aggregation.end()}};
}

PartSummary summarise_part(const fs::path& set, std::size_t user, const CheckpointPart& part) {
  const fs::path path = part_path(set, user);
  check_part(path, io::MappedFile(path), part);
  const io::SafetensorsFile file(path);
  const auto position = position_in(file, path);
  PartSummary summary{.stage = static_cast<Stage>(position[0]), .steps = position[1], .blocks = {}};
  for (const auto& [name, tensor] : file.tensors())
    if (tensor.dtype == io::Dtype::float32) summary.blocks.emplace_back(name, tensor.elements());
  return summary;
}

}  // namespace comigs::results
