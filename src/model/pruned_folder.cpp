// What a pruned base's folder says of its zeros, beside the weights that it speaks of.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "comigs/base/error.hpp"
#include "comigs/model/pruned_model.hpp"
#include "comigs/model/pruning_record.hpp"
#include "comigs/model/weights.hpp"

namespace comigs::model {

namespace {

// By name, how many numbers each matrix has.
std::map<std::string, std::int64_t> sizes_of_matrices(const Architecture& architecture) {
  std::map<std::string, std::int64_t> sizes;
  for (const std::vector<WeightSpec>& layer : prunable_weights(architecture))
    for (const WeightSpec& spec : layer) sizes[spec.name] = spec.count();
  return sizes;
}

}  // namespace

double PruningRecord::share_of_zeros(const Architecture& architecture) const {
  std::int64_t found = 0, all = 0;
  for (const auto& [matrix, count] : zeros) found += count;
  for (const auto& [matrix, size] : sizes_of_matrices(architecture)) all += size;
  return static_cast<double>(found) / static_cast<double>(all);
}

std::optional<PruningRecord> read_pruning(const std::filesystem::path& folder,
                                          const Architecture& architecture) {
  const std::filesystem::path path = folder / pruning_file;
  std::error_code none;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, none))) return std::nullopt;
  return read_record(path, sizes_of_matrices(architecture));
}

std::int64_t count_zeros(const at::Tensor& matrix) {
  return matrix.numel() - matrix.count_nonzero().item<std::int64_t>();
}

std::string lie_about_weights(const std::filesystem::path& folder, const Architecture& architecture,
                              const PruningRecord& record) {
  const std::string path = (folder / pruning_file).string();
  if (const std::string found = weights_digest(folder); found != record.weights_digest)
    return fmt::format(
        "{}: 'weights_digest' is {}, but the weights beside it have the SHA-256 {}: they are others", path,
        record.weights_digest, found);
  const WeightSource stored = open_weights_as_stored(folder);
  for (const std::vector<WeightSpec>& layer : prunable_weights(architecture))
    for (const WeightSpec& spec : layer)
      if (const std::int64_t found = count_zeros(stored(spec)); found != record.zeros.at(spec.name))
        return fmt::format("{}: 'zeros_by_matrix' has {} for {}, but the weights beside it have {}", path,
                           record.zeros.at(spec.name), spec.name, found);
  return {};
}

void check_pruning(const std::filesystem::path& folder, const Architecture& architecture,
                   const PruningRecord& record) {
  if (const std::string lie = lie_about_weights(folder, architecture, record); !lie.empty())
    throw DataError(lie + "; prune the base anew, or remove the file");
}

}  // namespace comigs::model
