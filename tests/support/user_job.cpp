#include "support/user_job.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>

#include "comigs/base/random.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "comigs/federation/method.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/micro_batches.hpp"

namespace comigs::test {

Job read_job(std::int64_t users, std::size_t user, const std::vector<std::string>& options,
             const c10::Device& device, std::optional<c10::ScalarType> activations) {
  config::Config config = config::resolve(config::parse(options), users);
  const federation::Method& method = federation::find_method(config.method.name);
  federation::check_method(method, config);
  const data::Manifest manifest = data::read_manifest(config.data.folder);
  return {.config = config,
          .user_model = federation::user_models(method, config.users).at(user),
          .texts = job::texts(method, config, manifest, user, job::open_user(config, manifest, user)),
          .base = model::load_base_model(config.model.folder, job::stored_type(config.run.precision), device,
                                         activations.value_or(job::computation(config.run, device).computed)),
          .plan = job::local_plan(method, config, user)};
}

void perturb(const at::Tensor& values, float deviation) {
  std::vector<float> numbers(static_cast<std::size_t>(values.numel()));
  fill_normal(numbers, deviation, {.seed = 12345});
  values.add_(at::from_blob(numbers.data(), values.sizes(), at::kFloat).to(values.device()));
}

at::Tensor as_tensor(const std::vector<std::int64_t>& part, const data::Batch& batch) {
  return at::tensor(part, at::kLong).view({batch.sequences, batch.context});
}

float value_or_nan(const at::Tensor& loss) {
  return loss.defined() ? loss.item<float>() : std::numeric_limits<float>::quiet_NaN();
}

Metadata layout(const adapter::Parameters& parameters) {
  Metadata places;
  for (const adapter::Part& part : parameters.layout().parts()) {
    const bool alone = part.role == adapter::Role::router && part.name == "weight";
    std::string name = alone                                ? "router"
                       : part.role == adapter::Role::router ? "router." + part.name
                                                            : part.name;
    if (part.role == adapter::Role::expert) name = fmt::format("expert.{}.{}", part.expert, name);
    if (part.tag != adapter::Part::Tag::whole) name += part.tag == adapter::Part::Tag::A ? ".A" : ".B";
    places[fmt::format("{}.{}", part.layer, name)] =
        fmt::format("{} {} {}", part.offset, part.rows, part.columns);
  }
  return places;
}

void write_outputs(const std::filesystem::path& file, const Outputs& outputs, const Metadata& metadata) {
  std::vector<io::NamedTensor> tensors;
  for (const auto& [name, tensor] : outputs) {
    const io::Dtype dtype = tensor.scalar_type() == at::kFloat ? io::Dtype::float32 : io::Dtype::int64;
    const std::span bytes(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes());
    tensors.push_back({name, {.dtype = dtype, .shape = tensor.sizes().vec(), .bytes = bytes}});
  }
  io::write_safetensors(file, tensors, metadata);
}

}  // namespace comigs::test
