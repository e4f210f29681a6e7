// A token file, with what a manifest promises of it in the input's first bytes: type, digest or none,
// vocabulary, difference between the tokens promised and those there. Where it is accepted, all of it can be
// read.
#include "comigs/data/token_shard.hpp"

#include <cstring>
#include <vector>

#include "comigs/base/sha256.hpp"
#include "input.hpp"

using namespace comigs;

namespace {

struct Promise {
  std::uint8_t is_wide, has_digest, digest_fits, tokens_differ;
  std::int32_t vocabulary, difference;
};

void read_all(const data::TokenShard& shard, std::int64_t vocabulary) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(shard.size()));
  shard.read(0, tokens);
  for (const std::int64_t token : tokens) fuzz::require(token >= 0 && token < vocabulary);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  Promise promise{};
  if (size < sizeof promise) return -1;
  std::memcpy(&promise, data, sizeof promise);
  const fuzz::Input content = fuzz::input(data, size).subspan(sizeof promise);
  const bool is_wide = promise.is_wide % 2 != 0;
  const auto there = static_cast<std::int64_t>(content.size() / (is_wide ? 4 : 2));
  data::ShardDescription description{
      .file = folder.write("shard.bin", content),
      .type = is_wide ? data::TokenType::uint32 : data::TokenType::uint16,
      .tokens = there + (promise.tokens_differ % 2 != 0 ? promise.difference : 0)};
  if (promise.has_digest % 2 != 0)
    description.sha256 = promise.digest_fits % 2 != 0 ? sha256(content) : std::string(64, 'a');
  fuzz::accept_or_refuse([&] {
    const data::TokenShard shard(description, promise.vocabulary);
    fuzz::require(shard.size() == description.tokens);
    read_all(shard, promise.vocabulary);
    read_all(shard.leading(3), promise.vocabulary);
  });
  return 0;
}
