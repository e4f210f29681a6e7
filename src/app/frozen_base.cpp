#include "frozen_base.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <ctime>

#include "comigs/comm/agreement.hpp"
#include "comigs/federation/fit.hpp"

namespace comigs::app {

FrozenBase::FrozenBase(const comm::Communicator& world, const config::Run& run,
                       const std::filesystem::path& folder, const model::Architecture& architecture,
                       const c10::Device& device) {
  const auto dtype = federation::stored_type(run.precision);
  // A name of its own: two runs that were given one folder must not mix their bases before one of them is
  // refused.
  const std::string name = world.all_broadcast(fmt::format(".base-{}-{}", getpid(), std::time(nullptr)));
  const std::filesystem::path copy = std::filesystem::path(run.output) / name;
  const std::vector<model::WeightSpec> specs = model::weight_specs(architecture);
  const bool convert =
      comm::all_agree(world, [&] { return device.is_cpu() && !model::can_be_mapped(folder, specs, dtype); });
  const bool any_converts = world.all_max(convert ? 1.0 : 0.0) > 0.0;
  comm::all_agree(world, [&] {
    if (!any_converts || !world.is_first()) return;
    converted_.path = copy;
    model::write_weights(copy, specs, model::open_weights(folder, dtype, at::kCPU));
  });
  model_ = comm::all_agree(world, [&] {
    return model::make_base_model(architecture, model::open_weights(convert ? copy : folder, dtype, device));
  });
}

FrozenBase::TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path.empty()) std::filesystem::remove_all(path, ignored);
}

}  // namespace comigs::app
