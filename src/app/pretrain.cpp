// comigs pretrain: a small base model from scratch.
#include <fmt/format.h>

#include <memory>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/comm/agreement.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/pretrain.hpp"
#include "comigs/job/device_choice.hpp"
#include "comigs/model/device.hpp"
#include "comigs/run/identity.hpp"
#include "comigs/run/output_folder.hpp"
#include "comigs/run/pretrain_course.hpp"
#include "comigs/run/pretrain_recipe.hpp"
#include "command.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

// What a person sees of the steps, from the first rank: a line for each evaluation, and a bar between them.
class Screen : public run::PretrainWatcher {
 public:
  Screen(std::int64_t steps, bool is_shown) : steps_(steps), is_shown_(is_shown) {}

  void goes_on(const Position& position) override {
    if (is_shown_) print_out("going on after step {}\n", position.steps);
  }
  void begins(std::int64_t steps) override { bar_.emplace(steps, is_shown_); }
  void stepped(const Position& position) override {
    bar_->advance(1, fmt::format("step {}/{}, loss {:.3f}", position.steps, steps_, position.loss));
  }
  void evaluated(const Position& position, double perplexity, double seconds) override {
    bar_->clear();
    print_out("step {:>6}  loss {:.3f}  validation perplexity {:.2f}  {}\n", position.steps, position.loss,
              perplexity, format_duration(seconds));
  }
  void ends() override { bar_.reset(); }

 private:
  std::int64_t steps_;
  bool is_shown_;
  std::optional<ProgressBar> bar_;
};

void print_plan(const run::PretrainRecipe& recipe, std::int64_t parameters, const c10::Device& device) {
  print_out(
      "comigs pretrain: GPT-2, {} layers, width {}, vocabulary {}, {} parameters; {} steps of {} x {} "
      "tokens on {} ({})\n",
      recipe.plan.layers, recipe.plan.width, recipe.manifest.vocabulary, group_digits(parameters),
      recipe.plan.steps, recipe.plan.batch_sequences, recipe.plan.context_tokens, recipe.manifest.name,
      model::describe(device));
}

void all_pretrain(const comm::Communicator& world, comm::Interruption& interruption,
                  const std::vector<std::string>& arguments) {
  // 1. What is to be made, and whether it is there already.
  const run::PretrainRecipe recipe =
      comm::all_agree(world, [&] { return run::read_pretrain_recipe(arguments); });
  const config::Pretrain& plan = recipe.plan;
  const run::PretrainCheckpoint checkpoint(plan.output, recipe.digest);
  run::all_insist_alike(
      world, {{"program", run::this_build()},
              {"digest of the options", sha256(recipe.options).substr(0, 12)},
              {"digest of " + plan.data + "/manifest.json", recipe.manifest.digest.substr(0, 12)}});
  // The first looks, for all: file systems may show others another state.
  const bool made = comm::all_agree(world, [&] { return world.is_first() && run::is_made(recipe); });
  if (world.all_max(made ? 1.0 : 0.0) > 0.0) {
    if (!world.is_first()) return;
    checkpoint.remove();
    print_out("{}: there already, made by the same options from the same data\n", plan.output);
    return;
  }
  std::optional<run::OutputFolder> output;
  comm::all_agree(world, [&] {
    if (!world.is_first()) return;
    output.emplace(plan.output);
    run::claim_folder(recipe);
  });
  // 2. Where.
  const comm::Placement placement = comm::all_place(world);
  const c10::Device device =
      comm::all_agree(world, [&] { return job::choose_device(plan.device, plan.threads, placement); });
  // 3. The weights and their training.
  const auto pretraining = comm::all_agree(world, [&] {
    return std::make_unique<train::Pretraining>(plan, recipe.manifest.vocabulary, device,
                                                data::Share{.index = world.rank(), .of = world.size()});
  });
  if (world.is_first()) print_plan(recipe, pretraining->parameters(), device);
  Screen screen(plan.steps, world.is_first());
  run::PretrainCourse({.world = world,
                       .memory = device.is_cuda() ? comm::Memory::device : comm::Memory::host,
                       .recipe = recipe,
                       .pretraining = *pretraining,
                       .checkpoint = checkpoint,
                       .interruption = interruption,
                       .watcher = screen})
      .all_run();
  // 4. The folder.
  comm::all_agree(world, [&] {
    if (!world.is_first()) return;
    output->lock().check();
    run::write_base(recipe, *pretraining);
    checkpoint.remove();
    print_out("base model: {}\n", plan.output);
  });
}

Start read_start(const std::vector<std::string>& arguments) {
  Start start;
  (void)comm::capture([&] { start.patience_seconds = config::parse_pretrain(arguments).patience; });
  return start;
}

}  // namespace

int pretrain(int& argc, char**& argv, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::pretrain_help());
    return 0;
  }
  return run_with_mpi(argc, argv, read_start(arguments),
                      [&](const comm::Communicator& world, comm::Interruption& interruption) {
                        all_pretrain(world, interruption, arguments);
                      });
}

}  // namespace comigs::app
