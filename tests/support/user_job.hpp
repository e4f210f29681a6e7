// One user of a job as `comigs train` would have it, and files of what happens to it, for programs that
// others compare with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comigs/adapter/parameters.hpp"
#include "comigs/config/config.hpp"
#include "comigs/io/safetensors.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/train/local_trainer.hpp"

namespace comigs::test {

struct Job {
  config::Config config;
  adapter::UserModel user_model;
  train::Texts texts;
  std::unique_ptr<model::BaseModel> base;
  train::LocalPlan plan;
};

/// User `user` of `users`, with the options of `comigs train`, on `device`; activations in another precision
/// than this machine's choice, if one is given.
[[nodiscard]] Job read_job(std::int64_t users, std::size_t user, const std::vector<std::string>& options,
                           const c10::Device& device = c10::DeviceType::CPU,
                           std::optional<c10::ScalarType> activations = std::nullopt);

/// Adds N(0, deviation^2) to every number: as drawn, each B is zero and so are the gradients of each A.
void perturb(const at::Tensor& values, float deviation);

/// A part of a batch, `tokens` or `targets`, as [B, T] int64.
[[nodiscard]] at::Tensor as_tensor(const std::vector<std::int64_t>& part, const data::Batch& batch);

/// A scalar loss; NaN where it is undefined.
[[nodiscard]] float value_or_nan(const at::Tensor& loss);

using Metadata = io::SafetensorsFile::Metadata;

/// Where each parameter lies in the block, read off the tensors that the model uses: "offset rows columns".
[[nodiscard]] Metadata layout(const adapter::Parameters& parameters);

/// Contiguous tensors of float32 or int64, to be written as one file.
using Outputs = std::map<std::string, at::Tensor>;
void write_outputs(const std::filesystem::path& file, const Outputs& outputs, const Metadata& metadata);

}  // namespace comigs::test
