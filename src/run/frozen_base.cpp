#include "comigs/run/frozen_base.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <string_view>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/removal.hpp"
#include "comigs/job/micro_batches.hpp"
#include "comigs/model/device.hpp"
#include "comigs/model/packed_weights.hpp"

namespace comigs::run {

namespace {

constexpr std::string_view prefix = ".base-";
constexpr const char* weights_file = "model.safetensors";  // as model::write_weights names it

bool is_weights_file(const std::string& name) {
  return name == weights_file || io::is_temporary_of(name, weights_file);
}

// Bases of runs that were killed: of names that only we give, and with nothing else in them.
void remove_left(const std::filesystem::path& output) {
  std::error_code ignored;
  std::vector<std::filesystem::path> left;
  for (const auto& entry : std::filesystem::directory_iterator(output, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && io::is_random_hexadecimal(name.substr(prefix.size())) &&
        io::holds_only(entry.path(), is_weights_file))
      left.push_back(entry.path());
  }
  for (const std::filesystem::path& folder : left) io::remove_ours(folder, is_weights_file);
}

// Collective. The weights in the memory of this rank's GPU, where it has one; of the ranks that compute on
// the same, the first uploads them for all.
at::Tensor all_upload(const comm::Communicator& world, const std::vector<model::WeightSpec>& specs,
                      const std::function<model::WeightSource()>& in_files, at::ScalarType dtype,
                      const c10::Device& device) {
  const auto upload = [&] { return model::pack_weights(specs, in_files(), dtype, device); };
  const comm::Communicator card = world.all_split_by_node().all_split_by(model::identity(device));
  const at::Tensor piece =
      comm::all_agree(world, [&] { return device.is_cuda() && card.is_first() ? upload() : at::Tensor(); });
  const std::string handle =
      card.all_broadcast(piece.defined() && card.size() > 1 ? model::share(piece) : std::string());
  return comm::all_agree(world, [&] {
    if (device.is_cpu() || piece.defined()) return piece;
    const at::Tensor shared = model::open_shared(handle, specs, dtype, device);
    return shared.defined() ? shared : upload();
  });
}

}  // namespace

config::Activations all_settle_activations(const comm::Communicator& world, const config::Run& run,
                                           bool is_fast) {
  const bool any_slow = world.all_max(is_fast ? 0.0 : 1.0) > 0.0;
  if (run.precision != config::Precision::bf16 || run.activations != config::Activations::automatic)
    return run.activations;
  return any_slow ? config::Activations::float32 : config::Activations::bf16;
}

WeightsFound all_find_weights(const comm::Communicator& world, const std::filesystem::path& folder) {
  WeightsFound found{.digest = {},
                     .state = comm::all_agree(world, [&] { return model::weights_state(folder); })};
  const comm::Communicator sharers = world.all_split_by_node().all_split_by(found.state);
  const std::string digest = comm::all_agree(
      world, [&] { return sharers.is_first() ? model::weights_digest(folder) : std::string(); });
  found.digest = sharers.all_broadcast(digest);
  return found;
}

FrozenBase::FrozenBase(const comm::Communicator& world, const config::Run& run,
                       const std::filesystem::path& folder, const WeightsFound& found,
                       const model::Architecture& architecture, const c10::Device& device) {
  const auto dtype = job::stored_type(run.precision);
  const std::string name = world.all_broadcast(fmt::format("{}{}", prefix, io::random_hexadecimal()));
  const std::filesystem::path copy = std::filesystem::path(run.output) / name;
  const std::vector<model::WeightSpec> specs = model::weight_specs(architecture);
  const bool is_first_of_node = world.all_split_by_node().is_first();
  comm::all_agree(world, [&] {
    if (is_first_of_node) model::check_finite(folder, specs);
  });
  const bool convert =
      comm::all_agree(world, [&] { return device.is_cpu() && !model::can_be_mapped(folder, specs, dtype); });
  const bool any_converts = world.all_max(convert ? 1.0 : 0.0) > 0.0;
  comm::all_agree(world, [&] {
    if (!any_converts || !world.is_first()) return;
    remove_left(run.output);
    converted_.emplace(run.output, name);
    model::write_weights(copy, specs, model::open_weights(folder, dtype, at::kCPU));
  });
  const auto in_files = [&] { return model::open_weights(convert ? copy : folder, dtype, at::kCPU); };
  const at::Tensor uploaded = all_upload(world, specs, in_files, dtype, device);
  model_ = comm::all_agree(world, [&] {
    return model::make_base_model(
        architecture, device.is_cpu() ? in_files() : model::packed_weights(uploaded, specs, dtype),
        job::computation(run, device).computed);
  });
  comm::all_agree(world, [&] {
    if (model::weights_state(folder) != found.state)
      throw DataError(fmt::format("the weights in {} changed while they were read", folder.string()));
  });
}

FrozenBase::TemporaryFolder::TemporaryFolder(const std::filesystem::path& output, const std::string& name)
    : path_(output / name) {
  std::error_code failed;
  if (!std::filesystem::create_directory(path_, failed))
    throw IoError(fmt::format("cannot make the folder '{}': {}", path_.string(),
                              failed ? failed.message() : "it is there already"));
}

FrozenBase::TemporaryFolder::~TemporaryFolder() { io::remove_ours(path_, is_weights_file); }

}  // namespace comigs::run
