// comigs prune: a base model with zeros in the linear maps of its blocks.
#include <fmt/format.h>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/finished/pruner.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/device_choice.hpp"
#include "command.hpp"

namespace comigs::app {

namespace {

// "3 zeros of 4 (75 %)".
std::string words(const model::Sparsity& sparsity) {
  return sparsity.of > 0
             ? fmt::format("{} zeros of {} ({:.4g} %)", sparsity.zeros, sparsity.of,
                           100.0 * static_cast<double>(sparsity.zeros) / static_cast<double>(sparsity.of))
             : fmt::format("{:.4g} % zeros", 100.0 * sparsity.share);
}

void print_found(const config::Prune& options, const finished::PrunedBase& pruned, const Stopwatch& watch) {
  const model::PruningRecord& record = pruned.record;
  print_out("comigs prune: {}, {}, {}", printable(options.model, 200), record.method, words(record.sparsity));
  if (record.calibration)
    print_out(", on {} x {} tokens", record.calibration->sequences, record.calibration->context_tokens);
  print_out("\n{:.4f} % of the numbers of {} matrices are 0\n",
            100.0 * record.share_of_zeros(pruned.architecture), record.zeros.size());
  print_out("base model: {} ({})\n", options.output, format_duration(watch.seconds()));
}

void prune(const config::Prune& options) {
  const Stopwatch watch;
  const finished::Pruner pruner(options);
  if (pruner.is_made()) {
    print_out("{}: there already, pruned in the same way from the same base and text\n", options.output);
    return;
  }
  const c10::Device device = job::choose_device(options.device, options.threads, comm::place_alone());
  ProgressBar bar(pruner.architecture().layers, true);
  finished::PrunedBase pruned = pruner.run(device, [&] { bar.advance(1, "layer by layer"); });
  bar.clear();
  io::check_mapped_files();
  comm::Interruption::finish_undisturbed();
  finished::write_pruned_base(options.output, pruned, options.replace);
  print_found(options, pruned, watch);
}

}  // namespace

int prune(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::prune_help());
    return 0;
  }
  return run_alone("prune", [&] {
    prune(config::parse_prune(arguments));
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace comigs::app
