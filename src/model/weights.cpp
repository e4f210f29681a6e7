#include "comigs/model/weights.hpp"

#include <ATen/ATen.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/file_state.hpp"
#include "comigs/io/safetensors.hpp"

namespace comigs::model {

namespace {

constexpr const char* weights_file = "model.safetensors";
const std::string prefix =
    "transformer.";  // of the language model's files; those of the bare network have none

at::ScalarType scalar_type(io::Dtype dtype, const std::string& where) {
  switch (dtype) {
    case io::Dtype::float32:
      return at::kFloat;
    case io::Dtype::bfloat16:
      return at::kBFloat16;
    case io::Dtype::float16:
      return at::kHalf;
    default:
      throw DataError(
          fmt::format("{}: a weight of type {}, expected F32, BF16 or F16", where, io::name_of(dtype)));
  }
}

at::Tensor aligned_copy(const io::TensorView& view, at::ScalarType dtype) {
  const at::Tensor copy = at::empty(view.shape, at::TensorOptions().dtype(dtype));
  std::memcpy(copy.data_ptr(), view.data(), view.bytes.size());
  return copy;
}

// Owns the mapped file for as long as a tensor of it lives.
class MappedWeights {
 public:
  explicit MappedWeights(const std::filesystem::path& file)
      : path_(file), file_(std::make_shared<io::SafetensorsFile>(file)) {}

  [[nodiscard]] bool is_usable_as(const WeightSpec& spec, io::Dtype dtype) const {
    const io::TensorView& found = find(spec);
    return found.dtype == dtype && found.is_aligned();
  }

  [[nodiscard]] at::Tensor get(const WeightSpec& spec, at::ScalarType dtype, const at::Device& device) const {
    const io::TensorView& found = find(spec);
    const std::string where = fmt::format("{}: '{}'", path_.string(), spec.name);
    if (found.shape != spec.shape)
      throw DataError(fmt::format("{} has shape [{}], expected [{}] from config.json", where,
                                  fmt::join(found.shape, ", "), fmt::join(spec.shape, ", ")));
    const at::ScalarType stored = scalar_type(found.dtype, where);
    // Files of older writers may have their tensors anywhere; arithmetic wants them aligned.
    if (!found.is_aligned()) return aligned_copy(found, stored).to(device, dtype);
    // LibTorch has no tensors of const: nothing writes to frozen weights, and the mapping's pages are
    // read-only.
    void* data = const_cast<std::byte*>(found.data());
    const at::Tensor mapped = at::from_blob(
        data, spec.shape, [file = file_](void*) {}, at::TensorOptions().dtype(stored));
    return mapped.to(device, dtype);
  }

 private:
  [[nodiscard]] const io::TensorView& find(const WeightSpec& spec) const {
    for (const std::string& name : {prefix + spec.name, spec.name})
      if (const io::TensorView* tensor = file_->find(name)) return *tensor;
    throw DataError(fmt::format("{}: the tensor '{}' is missing", path_.string(), spec.name));
  }

  std::filesystem::path path_;
  std::shared_ptr<const io::SafetensorsFile> file_;
};

io::Dtype stored_type(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? io::Dtype::bfloat16 : io::Dtype::float32;
}

}  // namespace

WeightSource open_weights(const std::filesystem::path& folder, at::ScalarType dtype,
                          const at::Device& device) {
  const auto weights = std::make_shared<MappedWeights>(folder / weights_file);
  return [weights, dtype, device](const WeightSpec& spec) { return weights->get(spec, dtype, device); };
}

bool can_be_mapped(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                   at::ScalarType dtype) {
  const MappedWeights weights(folder / weights_file);
  return std::all_of(specs.begin(), specs.end(),
                     [&](const WeightSpec& spec) { return weights.is_usable_as(spec, stored_type(dtype)); });
}

void write_weights(const std::filesystem::path& folder, const std::vector<WeightSpec>& specs,
                   const WeightSource& weights) {
  std::vector<at::Tensor> host;
  std::vector<io::NamedTensor> tensors;
  for (const WeightSpec& spec : specs) {
    host.push_back(weights(spec).detach().to(at::kCPU).contiguous());
    const std::span bytes(static_cast<const std::byte*>(host.back().const_data_ptr()), host.back().nbytes());
    tensors.push_back(
        {prefix + spec.name,
         {.dtype = stored_type(host.back().scalar_type()), .shape = spec.shape, .bytes = bytes}});
  }
  std::filesystem::create_directories(folder);
  io::write_safetensors(folder / weights_file, tensors);
}

std::string weights_state(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / weights_file;
  const std::optional<io::FileState> state = io::FileState::of(file);
  if (!state) throw DataError(fmt::format("cannot read '{}': {}", file.string(), std::strerror(errno)));
  return state->text();
}

std::string weights_digest(const std::filesystem::path& folder) {
  return sha256_of_file(folder / weights_file);
}

}  // namespace comigs::model
