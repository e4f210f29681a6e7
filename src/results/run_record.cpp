#include "comigs/results/run_record.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/io/hdf5.hpp"
#include "comigs/io/trial.hpp"

namespace comigs::results {

namespace {

constexpr std::string_view separator = "; ";

}  // namespace

std::string history_entry(std::int64_t round, const std::vector<std::string>& computed_by) {
  return fmt::format("from round {}: {}", round, fmt::join(computed_by, separator));
}

std::vector<std::string> computed_by(const std::string& history_entry) {
  constexpr std::string_view end_of_round = ": ";
  std::vector<std::string> parts;
  std::size_t begin = history_entry.find(end_of_round);
  if (begin == std::string::npos) return parts;
  for (begin += end_of_round.size(); begin < history_entry.size();) {
    const std::size_t end = std::min(history_entry.find(separator, begin), history_entry.size());
    parts.push_back(history_entry.substr(begin, end - begin));
    begin = end + separator.size();
  }
  return parts;
}

namespace {

RunRecord read_as_it_is(const std::filesystem::path& path) {
  try {
    const io::hdf5::File file = io::hdf5::File::open_to_read(path);
    const io::hdf5::Group root = file.root();
    const auto length = [&](const char* name) {
      const std::vector<std::uint64_t> extent = root.open_dataset(name).extent();
      if (extent.size() != 1) throw IoError(fmt::format("'/{}' is no list", name));
      return static_cast<std::int64_t>(extent[0]);
    };
    const auto text_since_0_2 = [&](const char* name) {
      return root.has_attribute(name) ? root.text_attribute(name) : std::string();
    };
    return {.identity = {.configuration = root.text_attribute("configuration"),
                         .data_digest = root.text_attribute("data_digest"),
                         .base_digest = root.text_attribute("base_digest"),
                         .init_adapter_digest = text_since_0_2("init_adapter_digest"),
                         .base_architecture = text_since_0_2("base_architecture"),
                         .activations = text_since_0_2("activations"),
                         .sequences_at_a_time = text_since_0_2("sequences_at_a_time"),
                         .users = root.open_dataset("user").read_texts()},
            .history =
                root.has_attribute("history") ? root.texts_attribute("history") : std::vector<std::string>(),
            .schema_version = root.number_attribute("schema_version"),
            .rounds = length("round") - 1,
            .shape = {.layers = length("layer"),
                      .experts = length("routing/expert"),
                      .users = length("user"),
                      .projections = length("expert/projection")}};
  } catch (const IoError& error) {
    throw DataError(fmt::format("{}: not the results of a run: {}", path.string(), error.what()));
  }
}

}  // namespace

RunRecord read_run_record(const std::filesystem::path& path) {
  io::try_apart(path, [&] { (void)read_as_it_is(path); });
  return read_as_it_is(path);
}

}  // namespace comigs::results
