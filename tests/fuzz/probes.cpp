// A file of probe texts: where it is accepted, ids are of the vocabulary and texts are valid.
#include "comigs/data/probes.hpp"

#include "comigs/data/vocabulary.hpp"
#include "input.hpp"

using namespace comigs;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  const std::filesystem::path file = folder.write("probes.json", fuzz::input(data, size));
  fuzz::accept_or_refuse([&] {
    const data::ProbeFile found = data::read_probes(file);
    for (const data::Probe& probe : found.probes) {
      fuzz::require(!probe.ids.empty() && probe.ids.size() == probe.texts.size());
      fuzz::require(probe.name.find('/') == std::string::npos);
      for (const std::int64_t id : probe.ids) fuzz::require(id >= 0 && id < found.vocabulary);
      for (const std::string& text : probe.texts) fuzz::require(data::valid_text(text) == text);
    }
  });
  return 0;
}
