#include "frozen_base.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <ctime>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/federation/fit.hpp"

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
  const bool convert =
      comm::all_agree(world, [&] { return device.is_cpu() && !model::can_be_mapped(folder, specs, dtype); });
  const bool any_converts = world.all_max(convert ? 1.0 : 0.0) > 0.0;
  comm::all_agree(world, [&] {
    if (!any_converts || !world.is_first()) return;
    remove_left(run.output);
    converted_.emplace(copy);
    model::write_weights(copy, specs, model::open_weights(folder, dtype, at::kCPU));
  });
  model_ = comm::all_agree(world, [&] {
    return model::make_base_model(architecture, model::open_weights(convert ? copy : folder, dtype, device));
  });
}

FrozenBase::TemporaryFolder::TemporaryFolder(std::filesystem::path path)
    : path_((std::filesystem::create_directories(path), std::move(path))), lock_(path_) {}

FrozenBase::TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace comigs::app
