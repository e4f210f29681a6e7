#include "comigs/results/run_record.hpp"

#include "comigs/base/error.hpp"
#include "comigs/io/hdf5.hpp"

namespace comigs::results {

RunRecord read_run_record(const std::filesystem::path& path) {
  try {
    const io::hdf5::File file = io::hdf5::File::open_to_read(path);
    const io::hdf5::Group root = file.root();
    const auto length = [&](const char* name) {
      const std::vector<std::uint64_t> extent = root.open_dataset(name).extent();
      if (extent.size() != 1) throw IoError(fmt::format("'/{}' is no list", name));
      return static_cast<std::int64_t>(extent[0]);
    };
    return {
        .identity = {.configuration = root.text_attribute("configuration"),
                     .data_digest = root.text_attribute("data_digest"),
                     .base_digest = root.text_attribute("base_digest"),
                     .users = root.open_dataset("user").read_texts()},
        .schema_version = root.number_attribute("schema_version"),
        .rounds = length("round") - 1,
        .shape = {.layers = length("layer"), .experts = length("routing/expert"), .users = length("user")}};
  } catch (const IoError& error) {
    throw DataError(fmt::format("{}: not the results of a run: {}", path.string(), error.what()));
  }
}

}  // namespace comigs::results
