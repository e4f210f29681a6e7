#include "recorder.hpp"

#include <ATen/ATen.h>

#include "comigs/comm/agreement.hpp"
#include "comigs/model/parameter_specs.hpp"

namespace comigs::app {

Recorder::Recorder(const comm::Communicator& world, const std::filesystem::path& path,
                   const results::RunDescription& run, const model::Architecture& architecture,
                   std::vector<model::UserModel> users)
    : world_(world),
      architecture_(architecture),
      users_(std::move(users)),
      shape_(results::round_shape(run)) {
  comm::all_agree(world_, [&] {
    if (!world_.is_first()) return;
    std::filesystem::create_directories(path.parent_path());
    file_.emplace(path, run);
  });
}

std::vector<UserRound> Recorder::all_write(const UserRound& record, const model::Parameters* parameters) {
  const std::vector<double> block = results::encode(record, shape_);
  const std::vector<double> blocks = world_.all_gather(block);
  std::vector<UserRound> rows;
  for (std::size_t user = 0; user < users_.size(); ++user)
    rows.push_back(results::decode(std::span(blocks).subspan(user * block.size(), block.size()), shape_));
  const auto stored =
      parameters != nullptr ? all_gather_blocks(*parameters) : std::vector<std::vector<float>>();
  comm::all_agree(world_, [&] {
    if (!file_) return;
    std::vector<std::vector<ParameterView>> views;
    for (std::size_t user = 0; user < stored.size(); ++user)
      views.push_back(model::stored_parameters(architecture_, users_[user], stored[user].data()));
    file_->write_round(rows, views);
  });
  return rows;
}

std::vector<std::vector<float>> Recorder::all_gather_blocks(const model::Parameters& parameters) const {
  const at::Tensor host = parameters.values().to(at::kCPU);
  return world_.all_gather_to_first({host.data_ptr<float>(), static_cast<std::size_t>(host.numel())});
}

}  // namespace comigs::app
