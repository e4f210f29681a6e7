#include "comigs/run/pretrain_course.hpp"

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <span>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/io/mapped_file.hpp"

namespace comigs::run {

void PretrainCourse::all_run() {
  Position position = all_restore();
  try {
    all_run_steps(position);
    setup_.watcher.ends();
  } catch (const PeerError& error) {
    setup_.watcher.ends();
    if (error.exit_code() == ExitCode::interrupted) all_leave(position);
    throw;
  }
}

PretrainCourse::Position PretrainCourse::all_restore() {
  const comm::Communicator& world = setup_.world;
  const PretrainCheckpoint::Blocks blocks = setup_.pretraining.state();
  const Position found = comm::all_agree(world, [&] {
    return world.is_first() && setup_.checkpoint.exists() ? setup_.checkpoint.read(blocks) : Position();
  });
  const std::array own = {static_cast<double>(found.steps), found.loss};
  const std::vector<double> all = world.all_gather(std::span<const double>(own));
  if (all[0] == 0.0) return {};
  for (const auto& [name, block] : blocks) {
    const at::Tensor host = block.to(at::kCPU);
    world.all_broadcast(std::span(host.data_ptr<float>(), static_cast<std::size_t>(host.numel())), 0);
    block.copy_(host);
  }
  const Position position{.steps = static_cast<std::int64_t>(all[0]), .loss = all[1]};
  setup_.watcher.goes_on(position);
  return position;
}

void PretrainCourse::all_run_steps(Position& position) {
  const comm::Communicator& world = setup_.world;
  const config::Pretrain& plan = setup_.recipe.plan;
  const data::BaseShards& corpus = *setup_.recipe.manifest.base;
  const std::int64_t vocabulary = setup_.recipe.manifest.vocabulary;
  const data::TokenShard text =
      comm::all_agree(world, [&] { return data::TokenShard(corpus.train, vocabulary); });
  const data::TokenShard held_out =
      comm::all_agree(world, [&] { return data::TokenShard(corpus.validation, vocabulary); });
  comm::Reduction reduction(setup_.memory, comm::Sums::any_order);
  setup_.watcher.begins(plan.steps - position.steps);
  const Stopwatch lap;
  for (;;) {
    if (is_evaluated(position.steps)) all_evaluate(position, held_out, lap);
    if (position.steps == plan.steps) return;
    // Ranks that meet at every step leave at the same one.
    if (world.all_max(setup_.interruption.is_asked() ? 1.0 : 0.0) > 0.0)
      throw PeerError(ExitCode::interrupted);
    position.loss = all_step(position.steps, text, reduction);
    ++position.steps;
    setup_.watcher.stepped(position);
  }
}

// The loss is a sum over ranks: where it is not finite, all of them learn of it in the same step and leave
// together.
double PretrainCourse::all_step(std::int64_t step, const data::TokenShard& text, comm::Reduction& reduction) {
  try {
    return setup_.pretraining.step(step, text,
                                   [&](std::span<float> block) { reduction.all_sum(setup_.world, block); });
  } catch (const NumericError& error) {
    comm::all_agree_on(setup_.world, comm::Failure{.exit_code = error.exit_code(), .message = error.what()});
    throw;
  }
}

void PretrainCourse::all_evaluate(const Position& position, const data::TokenShard& held_out,
                                  const Stopwatch& lap) {
  comm::all_agree(setup_.world, [&] {
    io::check_mapped_files();
    if (!setup_.world.is_first()) return;
    const double perplexity =
        setup_.pretraining.evaluate(held_out, [&] { return setup_.interruption.is_asked(); }).perplexity();
    if (!std::isfinite(perplexity)) {
      setup_.watcher.ends();  // before all ranks' message
      throw NumericError(fmt::format(
          "step {}: the validation perplexity is not finite; try a smaller --learning-rate", position.steps));
    }
    setup_.watcher.evaluated(position, perplexity, lap.seconds());
  });
}

void PretrainCourse::all_leave(const Position& position) {
  const std::string reason = setup_.interruption.all_reason();
  comm::all_agree(setup_.world, [&] {
    if (setup_.world.is_first() && position.steps > 0)
      setup_.checkpoint.write(position, setup_.pretraining.state());
  });
  if (setup_.world.is_first())
    spdlog::warn("stopped by {} after {} of {} steps{}; the same command goes on from there", reason,
                 position.steps, setup_.recipe.plan.steps, position.steps > 0 ? ", checkpoint written" : "");
}

bool PretrainCourse::is_evaluated(std::int64_t steps) const {
  const config::Pretrain& plan = setup_.recipe.plan;
  return steps > 0 && (steps % plan.evaluate_every == 0 || steps == plan.steps);
}

}  // namespace comigs::run
