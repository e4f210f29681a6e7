#include "frozen_base.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <ctime>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/federation/fit.hpp"
#include "comigs/model/device.hpp"
#include "comigs/model/packed_weights.hpp"

namespace comigs::app {

namespace {

constexpr std::string_view prefix = ".base-";

bool is_held(const std::filesystem::path& folder) {
  try {
    const io::FolderLock lock(folder);
    return false;
  } catch (const Error&) {
    return true;
  }
}

// Bases of runs that were killed.
void remove_left(const std::filesystem::path& output) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(output, ignored))
    if (entry.path().filename().string().starts_with(prefix) && !is_held(entry.path()))
      std::filesystem::remove_all(entry.path(), ignored);
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

FrozenBase::FrozenBase(const comm::Communicator& world, const config::Run& run,
                       const std::filesystem::path& folder, const model::Architecture& architecture,
                       const c10::Device& device) {
  const auto dtype = federation::stored_type(run.precision);
  // A name of its own: two runs that were given one folder must not mix their bases before one of them is
  // refused.
  const std::string name = world.all_broadcast(fmt::format("{}{}-{}", prefix, getpid(), std::time(nullptr)));
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
    converted_.emplace(copy);
    model::write_weights(copy, specs, model::open_weights(folder, dtype, at::kCPU));
  });
  const auto in_files = [&] { return model::open_weights(convert ? copy : folder, dtype, at::kCPU); };
  const at::Tensor uploaded = all_upload(world, specs, in_files, dtype, device);
  model_ = comm::all_agree(world, [&] {
    return model::make_base_model(
        architecture, device.is_cpu() ? in_files() : model::packed_weights(uploaded, specs, dtype));
  });
}

FrozenBase::TemporaryFolder::TemporaryFolder(std::filesystem::path path)
    : path_((std::filesystem::create_directories(path), std::move(path))), lock_(path_) {}

FrozenBase::TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace comigs::app
