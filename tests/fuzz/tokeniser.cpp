// A tokenizer.json: its vocabulary as texts, all of them valid; compared with itself.
#include "comigs/data/vocabulary.hpp"

#include "input.hpp"

using namespace comigs;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  const std::filesystem::path file = folder.write("tokenizer.json", fuzz::input(data, size));
  fuzz::accept_or_refuse([&] {
    const data::Vocabulary vocabulary(file);
    for (const std::int64_t token : {-1, 0, 1, 96, 1 << 30})
      fuzz::require(data::valid_text(vocabulary.text(token)) == vocabulary.text(token));
    fuzz::require(data::tokeniser_difference(file, file).empty());
  });
  return 0;
}
