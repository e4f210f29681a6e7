// A pruned base's comigs-pruning.json: what is accepted can be, is of the model's matrices, and comes back
// from its own JSON.
#include "comigs/model/pruning_record.hpp"

#include "input.hpp"

using namespace comigs;

namespace {

// Of the base that the seeds are about.
const std::map<std::string, std::int64_t> matrices = {{"h.0.attn.c_attn.weight", 3072},
                                                      {"h.0.mlp.c_fc.weight", 4096}};

void check(const model::PruningRecord& record) {
  const model::Sparsity& sparsity = record.sparsity;
  fuzz::require(sparsity.of > 0 ? sparsity.zeros > 0 && sparsity.zeros < sparsity.of
                                : sparsity.share >= 0.0 && sparsity.share < 1.0);
  fuzz::require(record.base_digest.size() == 64 && record.weights_digest.size() == 64);
  fuzz::require(record.zeros.size() == matrices.size());
  for (const auto& [matrix, zeros] : record.zeros) fuzz::require(zeros >= 0 && zeros <= matrices.at(matrix));
  if (const auto& text = record.calibration)
    fuzz::require(text->sequences > 0 && text->context_tokens > 0 && text->digest.size() == 64);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder;
  const std::filesystem::path file = folder.write("comigs-pruning.json", fuzz::input(data, size));
  fuzz::accept_or_refuse([&] {
    const model::PruningRecord record = model::read_record(file, matrices);
    check(record);
    const std::string json = model::as_json(record);
    const auto again = model::read_record(
        folder.write("again.json", std::as_bytes(std::span(json.data(), json.size()))), matrices);
    fuzz::require(model::as_json(again) == json && model::differences(again, record).empty());
  });
  return 0;
}
