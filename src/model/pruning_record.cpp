#include "comigs/model/pruning_record.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/model/config_file.hpp"

namespace comigs::model {

namespace {

constexpr const char* pruning_format = "comigs-pruning";
constexpr std::int64_t longest_run = 4096, most_sequences = 1 << 24;

// An entry that must be there, as text.
std::string text_of(const ConfigFile& file, const char* name) {
  const nlohmann::json value = file.value(name, nullptr);
  if (!value.is_string()) file.fail(name, value.is_null() ? "missing" : value.dump(), "text");
  return value.get<std::string>();
}

std::string digest_of(const ConfigFile& file, const char* name) {
  constexpr std::size_t digits = 64;
  const std::string text = text_of(file, name);
  if (text.size() != digits || text.find_first_not_of("0123456789abcdef") != text.npos)
    file.fail(name, text, "a SHA-256 of 64 hexadecimal digits");
  return text;
}

Sparsity sparsity_of(const ConfigFile& file) {
  const nlohmann::json share = file.value("share", nullptr);
  if (share.is_null()) {
    const Sparsity runs{.zeros = file.size("zeros", "zeros", longest_run),
                        .of = file.size("of", "of", longest_run)};
    if (runs.zeros >= runs.of)
      file.fail("zeros", std::to_string(runs.zeros), fmt::format("fewer than 'of', which is {}", runs.of));
    return runs;
  }
  if (!share.is_number() || share.get<double>() < 0.0 || share.get<double>() >= 1.0)
    file.fail("share", share.dump(), "a number from 0 to below 1");
  for (const char* name : {"zeros", "of"})
    if (const nlohmann::json other = file.value(name, nullptr); !other.is_null())
      file.fail(name, other.dump(), "nothing beside 'share'");
  return {.share = share.get<double>()};
}

std::optional<Calibration> calibration_of(const ConfigFile& file, const std::filesystem::path& path) {
  const nlohmann::json found = file.value("calibration", nullptr);
  if (found.is_null()) return std::nullopt;
  if (!found.is_object()) file.fail("calibration", found.dump(), "null or an object");
  const ConfigFile entries(found, path);
  const nlohmann::json seed = entries.value("seed", nullptr);
  // Records of earlier versions do not have it.
  const nlohmann::json precision = entries.value("precision", "float32");
  entries.insist_on_one("precision", precision, {"float32", "bf16"});
  if (!seed.is_number_unsigned()) entries.fail("seed", seed.dump(), "a whole number");
  return Calibration{.sequences = entries.size("sequences", "sequences", most_sequences),
                     .context_tokens = entries.size("context_tokens", "context_tokens", most_sequences),
                     .seed = seed.get<std::uint64_t>(),
                     .digest = digest_of(entries, "digest"),
                     .precision = precision.get<std::string>()};
}

std::map<std::string, std::int64_t> zeros_by_matrix(const ConfigFile& file,
                                                    const std::map<std::string, std::int64_t>& matrices) {
  constexpr const char* name = "zeros_by_matrix";
  const nlohmann::json found = file.value(name, nullptr);
  if (!found.is_object()) file.fail(name, found.dump(), "an object of matrices and their zeros");
  std::map<std::string, std::int64_t> zeros;
  for (const auto& [matrix, size] : matrices) {
    const nlohmann::json count = found.value(matrix, nlohmann::json());
    if (!count.is_number_unsigned() || count.get<std::uint64_t>() > static_cast<std::uint64_t>(size))
      file.fail(name, count.is_null() ? "without '" + matrix + "'" : count.dump() + " for " + matrix,
                fmt::format("a whole number up to {}", size));
    zeros[matrix] = count.get<std::int64_t>();
  }
  for (const auto& [matrix, count] : found.items())
    if (!zeros.contains(matrix)) file.fail(name, "of " + matrix, "the matrices of the model's blocks alone");
  return zeros;
}

// Entries that are objects on both sides are compared entry by entry.
void add_differences(const nlohmann::json& found, const nlohmann::json& expected,
                     std::vector<std::string>& differences) {
  const auto words = [](const nlohmann::json& value) { return value.is_null() ? "nothing" : value.dump(); };
  nlohmann::json either = expected;
  either.update(found);
  for (const auto& [name, ignored] : either.items()) {
    const nlohmann::json there = found.value(name, nlohmann::json());
    const nlohmann::json here = expected.value(name, nlohmann::json());
    if (there.is_object() && here.is_object())
      add_differences(there, here, differences);
    else if (there != here)
      differences.push_back(fmt::format("'{}' is {}, expected {}", name, words(there), words(here)));
  }
}

// What decides how a base is pruned.
nlohmann::json recipe_of(const PruningRecord& record) {
  nlohmann::json json = nlohmann::json::parse(as_json(record));
  json.erase("weights_digest");
  json.erase("zeros_by_matrix");
  return json;
}

}  // namespace

std::string as_json(const PruningRecord& record) {
  nlohmann::ordered_json json = {
      {"format", pruning_format}, {"format_version", 1}, {"method", record.method}};
  if (record.sparsity.of > 0) {
    json["zeros"] = record.sparsity.zeros;
    json["of"] = record.sparsity.of;
  } else {
    json["share"] = record.sparsity.share;
  }
  json["calibration"] = nullptr;
  if (const auto& from = record.calibration)
    json["calibration"] = {{"sequences", from->sequences},
                           {"context_tokens", from->context_tokens},
                           {"seed", from->seed},
                           {"digest", from->digest},
                           {"precision", from->precision}};
  json["base_digest"] = record.base_digest;
  json["weights_digest"] = record.weights_digest;
  json["zeros_by_matrix"] = record.zeros;
  return json.dump(1) + "\n";
}

PruningRecord read_record(const std::filesystem::path& path,
                          const std::map<std::string, std::int64_t>& matrices) {
  const io::MappedFile content(path);
  const nlohmann::json values = io::parse_json(content.bytes(), path.string());
  if (!values.is_object()) throw DataError(fmt::format("{}: not a JSON object", path.string()));
  const ConfigFile file(values, path);
  file.insist_on_one("format", file.value("format", nullptr), {pruning_format});
  file.insist("format_version", 1);
  file.insist_on_one("method", file.value("method", nullptr), {"magnitude", "wanda", "sparsegpt"});
  return PruningRecord{
      .method = text_of(file, "method"),
      .sparsity = sparsity_of(file),
      .calibration = calibration_of(file, path),
      .base_digest = digest_of(file, "base_digest"),
      .weights_digest = digest_of(file, "weights_digest"),
      .zeros = zeros_by_matrix(file, matrices),
      .text = std::string(reinterpret_cast<const char*>(content.data()), content.size_bytes())};
}

std::vector<std::string> differences(const PruningRecord& found, const PruningRecord& expected) {
  std::vector<std::string> differences;
  add_differences(recipe_of(found), recipe_of(expected), differences);
  return differences;
}

}  // namespace comigs::model
