#include "recorder.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "comigs/comm/agreement.hpp"

namespace comigs::app {

Recorder::Recorder(const comm::Communicator& world, const std::filesystem::path& path,
                   const results::RunDescription& run, const model::Architecture& architecture,
                   std::vector<model::UserModel> users)
    : world_(world), architecture_(architecture), users_(std::move(users)) {
  shape_ = {.layers = architecture.layers, .experts = 0, .users = world.size()};
  for (const model::UserModel& user : users_) shape_.experts = std::max(shape_.experts, user.experts);
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
  const auto experts =
      parameters != nullptr ? all_gather_experts(*parameters) : std::vector<std::vector<float>>();
  comm::all_agree(world_, [&] {
    if (!file_) return;
    std::vector<std::vector<FactorView>> factors;
    for (std::size_t user = 0; user < experts.size(); ++user)
      factors.push_back(model::expert_factors(architecture_, users_[user], experts[user].data()));
    file_->write_round(rows, factors);
  });
  return rows;
}

std::vector<std::vector<float>> Recorder::all_gather_experts(const model::Parameters& parameters) const {
  const at::Tensor host = model::view(parameters.values(), parameters.experts()).to(at::kCPU);
  return world_.all_gather_to_first({host.data_ptr<float>(), static_cast<std::size_t>(host.numel())});
}

}  // namespace comigs::app
