#include "comigs/model/weights.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/file_state.hpp"
#include "comigs/io/safetensors.hpp"
#include "stored_weights.hpp"
#include "weight_files.hpp"

namespace comigs::model {

namespace {

io::Dtype stored_type(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? io::Dtype::bfloat16
         : dtype == at::kHalf   ? io::Dtype::float16
                                : io::Dtype::float32;
}

}  // namespace

WeightSource open_weights(const std::filesystem::path& folder, at::ScalarType dtype,
                          const at::Device& device) {
  const auto weights = std::make_shared<StoredWeights>(folder);
  return [weights, dtype, device](const WeightSpec& spec) { return weights->get(spec).to(device, dtype); };
}

WeightSource open_weights_as_stored(const std::filesystem::path& folder) {
  const auto weights = std::make_shared<StoredWeights>(folder);
  return [weights](const WeightSpec& spec) { return weights->get(spec); };
}

bool can_be_mapped(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                   at::ScalarType dtype) {
  const StoredWeights weights(folder);
  return std::all_of(specs.begin(), specs.end(),
                     [&](const WeightSpec& spec) { return weights.is_usable_as(spec, dtype); });
}

void check_finite(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs) {
  const StoredWeights weights(folder);
  for (const WeightSpec& spec : specs) {
    const auto [least, most] = weights.get(spec).aminmax();  // a NaN is both
    for (const double number : {least.item<double>(), most.item<double>()})
      if (!std::isfinite(number))
        throw DataError(
            fmt::format("{} has {} in it, expected finite numbers", weights.place_of(spec), number));
  }
}

void write_weights(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                   const WeightSource& weights) {
  std::vector<at::Tensor> host;
  std::vector<io::NamedTensor> tensors;
  for (const WeightSpec& spec : specs) {
    host.push_back(weights(spec).detach().to(at::kCPU).contiguous());
    const std::span bytes(static_cast<const std::byte*>(host.back().const_data_ptr()), host.back().nbytes());
    tensors.push_back(
        {spec.prefix + spec.name,
         {.dtype = stored_type(host.back().scalar_type()), .shape = spec.shape, .bytes = bytes}});
  }
  std::filesystem::create_directories(folder);
  io::write_safetensors(folder / "model.safetensors", tensors);
}

std::vector<std::filesystem::path> weight_files(const std::filesystem::path& folder) {
  return find_weight_files(folder).files;
}

std::string weights_state(const std::filesystem::path& folder) {
  std::string states;
  for (const std::filesystem::path& file : weight_files(folder)) {
    const std::optional<io::FileState> state = io::FileState::of(file);
    if (!state) throw DataError(fmt::format("cannot read '{}': {}", file.string(), std::strerror(errno)));
    states += state->text() + "\n";
  }
  return states;
}

std::string weights_digest(const std::filesystem::path& folder) {
  const WeightFiles found = find_weight_files(folder);
  if (found.promised.empty()) return sha256_of_file(found.entry);
  std::string digests;
  for (const std::filesystem::path& shard : found.files)
    digests += fmt::format("{}  {}\n", sha256_of_file(shard), shard.filename().string());
  return sha256(digests);
}

}  // namespace comigs::model
