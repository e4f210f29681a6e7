// A manifest: where it is accepted, no file that it names lies outside its folder.
#include "comigs/data/manifest.hpp"

#include "input.hpp"

using namespace comigs;

namespace {

void check_inside(const std::filesystem::path& folder, const std::filesystem::path& file) {
  const std::string relative = file.lexically_relative(folder).lexically_normal().string();
  fuzz::require(!relative.empty() && !relative.starts_with("..") && !relative.starts_with("/"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  folder.write("manifest.json", fuzz::input(data, size));
  fuzz::accept_or_refuse([&] {
    const data::Manifest manifest = data::read_manifest(folder.folder);
    fuzz::require(!manifest.users.empty() && manifest.digest.size() == 64);
    check_inside(folder.folder, manifest.tokeniser);
    for (const data::UserShards& user : manifest.users)
      for (const data::ShardDescription& shard : {user.train, user.validation, user.test}) {
        fuzz::require(shard.tokens >= 0);
        check_inside(folder.folder, shard.file);
        if (shard.examples) check_inside(folder.folder, shard.examples->file);
      }
    if (manifest.base) check_inside(folder.folder, manifest.base->train.file);
  });
  return 0;
}
