// A checkpoint's manifest: where it is accepted, it has a part of each user.
#include "comigs/results/checkpoint.hpp"

#include "input.hpp"

using namespace comigs;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  folder.write("manifest.json", fuzz::input(data, size));
  fuzz::accept_or_refuse([&] {
    const results::CheckpointManifest manifest = results::read_manifest(folder.folder);
    fuzz::require(manifest.parts.size() == manifest.identity.users.size());
  });
  return 0;
}
