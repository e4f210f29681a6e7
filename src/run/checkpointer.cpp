#include "comigs/run/checkpointer.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/io/removal.hpp"
#include "comigs/run/identity.hpp"

namespace comigs::run {

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

// The state's blocks, as files have them.
std::vector<results::StateBlock> views(const UserState& state) {
  std::vector<results::StateBlock> blocks;
  for (const auto& [name, block] : state.blocks)
    blocks.push_back({name, {block.data_ptr<float>(), static_cast<std::size_t>(block.numel())}});
  return blocks;
}

}  // namespace

Checkpointer::Checkpointer(const Setup& setup, std::filesystem::path folder, results::RunIdentity identity,
                           results::RoundShape shape, const io::FolderLock* held)
    : setup_(setup), folder_(std::move(folder)), identity_(std::move(identity)), shape_(shape), held_(held) {}

void Checkpointer::all_refuse_others(config::Resume resume) const {
  comm::all_agree(setup_.world, [&] {
    if (!setup_.world.is_first()) return;
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

void Checkpointer::all_write() {
  std::string next;
  all_change([&] { next = results::next_set(folder_).string(); });
  const std::filesystem::path set = setup_.world.all_broadcast(next);
  const std::size_t user = setup_.seat.user();
  const std::int64_t round = setup_.seat.progress().record.round;
  const results::CheckpointPart own = comm::all_agree(setup_.world, [&] {
    UserState state = setup_.seat.give();
    state.standing.participates = setup_.attendance.is_present(user, round) ? 1 : 0;
    state.standing.ranks_in_use = setup_.aggregation.rank_in_use();
    state.standing.aggregation = setup_.aggregation.state();
    return results::write_part(set, user, state.standing, views(state), shape_);
  });
  const std::vector<std::string> digests = setup_.roster.all_gather(std::span(&own.sha256, 1));
  const auto own_bytes = static_cast<std::int64_t>(own.bytes);
  const std::vector<std::int64_t> bytes = setup_.roster.all_gather(std::span(&own_bytes, 1));
  all_change([&] {
    results::CheckpointManifest manifest{.identity = identity_, .round = round, .parts = {}};
    for (std::size_t i = 0; i < digests.size(); ++i)
      manifest.parts.push_back({.bytes = static_cast<std::uint64_t>(bytes[i]), .sha256 = digests[i]});
    results::write_manifest(set, manifest);
    results::keep_newest_sets(folder_, sets_kept);
  });
}

bool Checkpointer::all_restore(std::int64_t recorded) {
  std::string names;
  if (setup_.world.is_first())
    for (const std::filesystem::path& set : results::complete_sets(folder_)) names += set.string() + "\n";
  std::vector<std::string> unusable;
  for (const std::string& set : lines(setup_.world.all_broadcast(names))) {
    if (all_read(set, recorded)) {
      // They would count among those kept.
      all_change([&] {
        for (const std::string& newer : unusable) results::remove_set(newer);
      });
      return true;
    }
    unusable.push_back(set);
  }
  return false;
}

bool Checkpointer::all_read(const std::filesystem::path& set, std::int64_t recorded) {
  UserState state;
  const std::optional<comm::Failure> failure = comm::capture([&] { state = read(set, recorded); });
  const std::string message = failure ? failure->message : std::string();
  std::vector<std::string> messages = setup_.roster.all_gather(std::span(&message, 1));
  messages.push_back(all_find_contradiction(state.standing));
  const auto found = std::ranges::find_if(messages, [](const std::string& text) { return !text.empty(); });
  if (found != messages.end()) {
    if (setup_.world.is_first()) spdlog::warn("checkpoint {} cannot be used: {}", set.string(), *found);
    return false;
  }
  all_take(state);
  return true;
}

UserState Checkpointer::read(const std::filesystem::path& set, std::int64_t recorded) const {
  const std::size_t user = setup_.seat.user();
  const results::CheckpointManifest manifest = results::read_manifest(set);
  // Rows that results.h5 lacks could not be made up for.
  if (manifest.round > recorded + 1)
    throw DataError(fmt::format(
        "it is of round {}, but results.h5 {}", manifest.round,
        recorded < 0 ? std::string("has no rounds") : fmt::format("ends with round {}", recorded)));
  UserState state;
  for (const auto& [name, block] : setup_.seat.trainer().state())
    state.blocks.emplace_back(name, at::empty(block.sizes(), at::kFloat));
  state.standing = results::read_part(set, user, manifest.parts.at(user), views(state), shape_);
  check(set, manifest.round, state.standing);
  return state;
}

void Checkpointer::check(const std::filesystem::path& set, std::int64_t round,
                         const results::UserStanding& standing) const {
  const train::LocalTrainer& trainer = setup_.seat.trainer();
  const train::LocalPlan& plan = trainer.plan();
  const results::RoundProgress& progress = standing.progress;
  const bool possible = progress.record.round == round && round >= 0 && round <= plan.rounds &&
                        progress.steps <= plan.user.local_steps && standing.start.round == 0 &&
                        standing.ranks_in_use >= 1 &&
                        standing.ranks_in_use <= setup_.seat.parameters().user_model().rank_as_told() &&
                        (standing.participates == 1 || (standing.participates == 0 && !trainer.exchanges()));
  if (!possible)
    throw DataError(fmt::format("{}: round {}, step {}, {} ranks in use is no place in this run",
                                set.string(), progress.record.round, progress.steps, standing.ranks_in_use));
}

std::string Checkpointer::all_find_contradiction(const results::UserStanding& standing) const {
  const std::int64_t stage = static_cast<std::int64_t>(standing.progress.stage);
  const std::vector<std::int64_t> stages = setup_.roster.all_gather(std::span(&stage, 1));
  if (std::ranges::count(stages, stage) != std::ssize(stages)) return "users are at unlike places";
  if (setup_.world.all_sum(standing.participates) == 0) return "no user takes part";
  return {};
}

void Checkpointer::all_take(const UserState& state) {
  comm::all_agree(setup_.world, [&] {
    setup_.seat.take(state);
    setup_.aggregation.leave_ranks(state.standing.ranks_in_use);
  });
  const std::vector<std::int64_t> participate =
      setup_.roster.all_gather(std::span(&state.standing.participates, 1));
  std::vector<bool> gone;
  for (const std::int64_t takes_part : participate) gone.push_back(takes_part == 0);
  const std::int64_t round = state.standing.progress.record.round;
  if (std::ranges::find(gone, true) != gone.end()) {
    setup_.attendance.drop(gone, round);
    setup_.aggregation.all_restrict(setup_.attendance.present(round));
  }
  comm::all_agree(setup_.world, [&] { setup_.aggregation.restore(state.standing.aggregation); });
}

void Checkpointer::all_remove() {
  all_change([&] {
    results::keep_newest_sets(folder_, 0);
    io::remove_empty(folder_);
  });
}

void Checkpointer::all_change(const std::function<void()>& change) const {
  comm::all_agree(setup_.world, [&] {
    if (held_ == nullptr) return;
    held_->check();
    change();
  });
}

}  // namespace comigs::run
