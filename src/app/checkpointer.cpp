#include "checkpointer.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/io/removal.hpp"
#include "identity.hpp"

namespace comigs::app {

namespace {

constexpr std::size_t sets_kept = 2;

// Rank 0's text, "" for nothing, split at line ends: a list that all ranks have alike.
std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> found;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    found.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return found;
}

}  // namespace

Checkpointer::Checkpointer(const comm::Communicator& world, std::filesystem::path folder,
                           results::RunIdentity identity, results::RoundShape shape,
                           adapter::Parameters& parameters, const train::LocalTrainer& trainer,
                           federation::Participation& participation, const io::FolderLock* held)
    : world_(world),
      folder_(std::move(folder)),
      identity_(std::move(identity)),
      shape_(shape),
      parameters_(parameters),
      trainer_(trainer),
      participation_(participation),
      held_(held) {}

void Checkpointer::all_refuse_others(config::Resume resume) const {
  comm::all_agree(world_, [&] {
    if (!world_.is_first()) return;
    for (const std::filesystem::path& set : results::complete_sets(folder_)) {
      if (resume == config::Resume::never)
        throw ConfigError(
            fmt::format("'{}' holds checkpoints of an interrupted run; choose another output folder, "
                        "remove it, or go on with it by --resume auto",
                        folder_.string()));
      std::optional<results::CheckpointManifest> manifest;
      // One that is damaged is told of where it is to be used.
      if (comm::capture([&] { manifest = results::read_manifest(set); })) continue;
      const std::vector<std::string> unlike = differences(manifest->identity, identity_, set.string());
      if (!unlike.empty())
        throw ConfigError(fmt::format("checkpoint {} is of another run:\n  - {}", set.string(),
                                      fmt::join(unlike, "\n  - ")));
    }
  });
}

void Checkpointer::all_write(const RoundProgress& progress, const UserRound& start) {
  std::string next;
  all_change([&] { next = results::next_set(folder_).string(); });
  const std::filesystem::path set = world_.all_broadcast(next);
  const auto user = static_cast<std::size_t>(world_.rank());
  const results::CheckpointPart own = comm::all_agree(world_, [&] {
    const results::UserState state{.progress = progress,
                                   .start = start,
                                   .lora_rank = participation_.rank_in_use(),
                                   .participates = participation_.includes(user) ? 1 : 0,
                                   .aggregation = participation_.state()};
    std::vector<at::Tensor> host;
    std::vector<results::StateBlock> blocks;
    for (const auto& [name, block] : trainer_.state()) {
      host.push_back(block.to(at::kCPU));
      blocks.push_back(
          {name, {host.back().data_ptr<float>(), static_cast<std::size_t>(host.back().numel())}});
    }
    return results::write_part(set, user, state, blocks, shape_);
  });
  const std::vector<std::string> digests = world_.all_gather(own.sha256);
  const auto own_bytes = static_cast<std::int64_t>(own.bytes);
  const std::vector<std::int64_t> bytes = world_.all_gather(std::span(&own_bytes, 1));
  all_change([&] {
    results::CheckpointManifest manifest{.identity = identity_, .round = progress.record.round, .parts = {}};
    for (std::size_t i = 0; i < digests.size(); ++i)
      manifest.parts.push_back({.bytes = static_cast<std::uint64_t>(bytes[i]), .sha256 = digests[i]});
    results::write_manifest(set, manifest);
    results::keep_newest_sets(folder_, sets_kept);
  });
}

std::optional<results::UserState> Checkpointer::all_restore(std::int64_t recorded) {
  std::string names;
  if (world_.is_first())
    for (const std::filesystem::path& set : results::complete_sets(folder_)) names += set.string() + "\n";
  std::vector<std::string> unusable;
  for (const std::string& set : lines(world_.all_broadcast(names))) {
    if (std::optional<results::UserState> state = all_read(set, recorded)) {
      // They would count among those kept.
      all_change([&] {
        for (const std::string& newer : unusable) results::remove_set(newer);
      });
      return state;
    }
    unusable.push_back(set);
  }
  return std::nullopt;
}

std::optional<results::UserState> Checkpointer::all_read(const std::filesystem::path& set,
                                                         std::int64_t recorded) {
  const auto user = static_cast<std::size_t>(world_.rank());
  results::UserState state;
  std::vector<std::vector<float>> blocks;
  const std::optional<comm::Failure> failure = comm::capture([&] {
    const results::CheckpointManifest manifest = results::read_manifest(set);
    // Rows that results.h5 lacks could not be made up for.
    if (manifest.round > recorded + 1)
      throw DataError(fmt::format(
          "it is of round {}, but results.h5 {}", manifest.round,
          recorded < 0 ? std::string("has no rounds") : fmt::format("ends with round {}", recorded)));
    std::vector<results::StateBlock> places;
    for (const auto& [name, block] : trainer_.state()) {
      blocks.emplace_back(static_cast<std::size_t>(block.numel()));
      places.push_back({name, blocks.back()});
    }
    state = results::read_part(set, user, manifest.parts.at(user), places, shape_);
    check(set, manifest.round, state);
  });
  std::vector<std::string> messages = world_.all_gather(failure ? failure->message : std::string());
  messages.push_back(all_compare(state));
  const auto found = std::ranges::find_if(messages, [](const std::string& text) { return !text.empty(); });
  if (found != messages.end()) {
    if (world_.is_first()) spdlog::warn("checkpoint {} cannot be used: {}", set.string(), *found);
    return std::nullopt;
  }
  all_take(state, blocks);
  return state;
}

void Checkpointer::check(const std::filesystem::path& set, std::int64_t round,
                         const results::UserState& state) const {
  const train::LocalPlan& plan = trainer_.plan();
  const RoundProgress& progress = state.progress;
  const bool possible = progress.record.round == round && round >= 0 && round <= plan.rounds &&
                        progress.steps <= plan.user.local_steps && state.start.round == 0 &&
                        state.lora_rank >= 1 && state.lora_rank <= parameters_.user_model().lora_rank &&
                        (state.participates == 1 || (state.participates == 0 && !trainer_.exchanges()));
  if (!possible)
    throw DataError(fmt::format("{}: round {}, step {}, LoRA rank {} is no place in this run", set.string(),
                                progress.record.round, progress.steps, state.lora_rank));
}

std::string Checkpointer::all_compare(const results::UserState& state) const {
  const std::int64_t stage = static_cast<std::int64_t>(state.progress.stage);
  const std::vector<std::int64_t> stages = world_.all_gather(std::span(&stage, 1));
  if (std::ranges::count(stages, stage) != std::ssize(stages)) return "users are at unlike places";
  if (world_.all_sum(state.participates) == 0) return "no user takes part";
  return {};
}

void Checkpointer::all_take(const results::UserState& state, const std::vector<std::vector<float>>& blocks) {
  const std::vector<std::pair<std::string, at::Tensor>> own = trainer_.state();
  for (std::size_t i = 0; i < own.size(); ++i)
    own[i].second.copy_(
        at::from_blob(const_cast<float*>(blocks[i].data()), own[i].second.sizes(), at::kFloat));
  comm::all_agree(world_, [&] { participation_.leave_ranks(state.lora_rank); });
  const std::vector<std::int64_t> participate = world_.all_gather(std::span(&state.participates, 1));
  std::vector<bool> gone;
  for (const std::int64_t takes_part : participate) gone.push_back(takes_part == 0);
  if (std::ranges::find(gone, true) != gone.end()) participation_.all_drop(gone);
  comm::all_agree(world_, [&] { participation_.restore(state.aggregation); });
}

void Checkpointer::all_remove() {
  all_change([&] {
    results::keep_newest_sets(folder_, 0);
    io::remove_empty(folder_);
  });
}

void Checkpointer::all_change(const std::function<void()>& change) const {
  comm::all_agree(world_, [&] {
    if (held_ == nullptr) return;
    held_->check();
    change();
  });
}

}  // namespace comigs::app
