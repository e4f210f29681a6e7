#include "comigs/run/recorder.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "comigs/adapter/layout.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/run/identity.hpp"

namespace comigs::run {

Recorder::Recorder(const comm::Communicator& world, const Roster& roster, const std::filesystem::path& path,
                   const results::RunDescription& run, const model::Architecture& architecture,
                   std::vector<adapter::UserModel> users, config::Resume resume, const io::FolderLock* held)
    : world_(world),
      roster_(roster),
      run_(run),
      architecture_(architecture),
      users_(std::move(users)),
      shape_(results::round_shape(run)) {
  using Existing = results::ResultsFile::Existing;
  comm::all_agree(world_, [&] {
    if (!world_.is_first()) return;
    file_.emplace(path, run, resume == config::Resume::automatic ? Existing::go_on : Existing::refuse, held);
    if (!file_->found()) return;
    const std::vector<std::string> unlike =
        differences(file_->found()->identity, results::identity(run), path.string());
    if (!unlike.empty())
      throw ConfigError(fmt::format("'{}' is of another run, which cannot be gone on with:\n  - {}",
                                    path.string(), fmt::join(unlike, "\n  - ")));
    file_->check_found();
  });
  recorded_ = static_cast<std::int64_t>(world_.all_max(file_ ? static_cast<double>(file_->rounds()) : -1.0));
}

void Recorder::all_note_resumption() {
  comm::all_agree(world_, [&] {
    if (!file_ || !file_->found()) return;
    const results::RunRecord& found = *file_->found();
    const std::vector<std::string> moved =
        moves(found.identity, results::identity(run_), file_->path().string());
    for (const std::string& move : moved) spdlog::info("goes on with {}: the same content", move);
    const std::vector<std::string> before =
        found.history.empty() ? std::vector<std::string>() : results::computed_by(found.history.back());
    if (before != run_.computed_by)
      spdlog::warn("goes on with {}; before it was {}: the last bits may differ",
                   only_in(run_.computed_by, before), only_in(before, run_.computed_by));
    file_->note_resumption(!moved.empty());
  });
}

void Recorder::discard_empty() {
  // The failure that led here is told, not one of this.
  if (file_) (void)comm::capture([&] { file_->discard_empty(); });
}

std::vector<results::UserRound> Recorder::all_gather(const results::UserRound& record) const {
  const std::vector<double> block = results::encode(record, shape_);
  const std::vector<double> blocks = roster_.all_gather(block);
  std::vector<results::UserRound> rows;
  for (std::size_t user = 0; user < users_.size(); ++user)
    rows.push_back(results::decode(std::span(blocks).subspan(user * block.size(), block.size()), shape_));
  return rows;
}

std::vector<results::UserRound> Recorder::all_write(results::UserRound& record,
                                                    const adapter::Parameters* parameters) {
  if (record.round <= recorded_) return all_gather(record);
  const Stopwatch before;
  if (parameters != nullptr) all_write_weights(record.round, *parameters);
  record.seconds.writing = unrecorded_seconds_ + before.seconds();
  record.seconds.total += record.seconds.writing;
  const Stopwatch after;
  std::vector<results::UserRound> rows = all_gather(record);
  comm::all_agree(world_, [&] {
    if (file_) file_->write_round(rows);
  });
  unrecorded_seconds_ = after.seconds();
  return rows;
}

void Recorder::all_write_weights(std::int64_t round, const adapter::Parameters& parameters) {
  const std::vector<std::vector<float>> stored = all_gather_blocks(parameters);
  comm::all_agree(world_, [&] {
    if (!file_) return;
    std::vector<std::vector<ParameterView>> views;
    for (std::size_t user = 0; user < stored.size(); ++user)
      views.push_back(adapter::stored_parameters(architecture_, users_[user], stored[user].data()));
    file_->write_weights(round, views);
  });
}

std::vector<std::vector<float>> Recorder::all_gather_blocks(const adapter::Parameters& parameters) const {
  const at::Tensor host = parameters.values().to(at::kCPU);
  const std::span<const float> own(host.data_ptr<float>(), static_cast<std::size_t>(host.numel()));
  return roster_.all_gather_to_first(std::span(&own, 1));
}

}  // namespace comigs::run
