// comigs: federated fine-tuning of language models with mixtures of experts, one MPI rank a user.
#include <fmt/format.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <string>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/version.hpp"
#include "comigs/comm/interruption.hpp"
#include "command.hpp"

namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(int& argc, char**& argv, const std::vector<std::string>& arguments);
  bool has_mpi = false;
};

constexpr Command commands[] = {
    {"train", "fine-tune with any method of the table; one MPI rank a user", comigs::app::train, true},
    {"plan", "what a run of train will take: memory, FLOPs, bytes sent, time; and whether it fits",
     comigs::app::plan},
    {"pretrain", "make a small base model from scratch, data-parallel over ranks", comigs::app::pretrain,
     true},
    {"prune", "set weights of a base model to zero: magnitude, Wanda, SparseGPT", comigs::app::prune},
    {"route", "run texts through a finished run's users and store every token's gate weights",
     comigs::app::route},
    {"evaluate", "perplexity of a finished run's models, or of a base model, on every user's texts",
     comigs::app::evaluate},
    {"generate", "let a finished run's models, or a base model, continue texts", comigs::app::generate},
    {"inspect", "say what a base model, a data set, a run or a checkpoint holds", comigs::app::inspect},
    {"methods", "print the table of methods", comigs::app::methods},
};

std::string usage() {
  std::string text = "usage: comigs COMMAND [options]\n\n";
  for (const Command& command : commands) text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  return text + "\n'comigs COMMAND --help' lists a command's options, 'comigs --version' names this build.\n";
}

// Errors of a phase are agreed on by all ranks inside the commands; what comes here comes from before MPI or
// after it.
int run(const Command& command, int argc, char** argv) {
  if (!command.has_mpi) comigs::comm::Interruption::leave_at_once();
  try {
    return command.run(argc, argv, std::vector<std::string>(argv + 2, argv + argc));
  } catch (const comigs::Error& error) {
    comigs::print_error(fmt::format("comigs: {}\n", error.what()));
    return static_cast<int>(error.exit_code());
  } catch (const std::exception& error) {
    comigs::print_error(fmt::format("comigs: {}\n", comigs::first_line(error)));
    return static_cast<int>(comigs::ExitCode::failed);
  }
}

// Whatever this process was given: nothing that it writes, temporary or not, is writable for everyone.
void keep_others_from_writing() { umask(umask(0) | S_IWOTH); }

// A file that may not grow any further is an error of whoever writes it, who tidies up, not an end on the
// spot.
void find_limits_of_files() { std::signal(SIGXFSZ, SIG_IGN); }

// A signal is to be found by a command that knows what to do about it, not to kill what is still being
// loaded: before LibTorch's own initialisation, which takes longer than everything else before main.
[[gnu::section(".preinit_array"),
  gnu::used]] void (*const hold_signals)() = &comigs::comm::Interruption::hold_signals;

int run(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  for (const Command& command : commands)
    if (name == command.name) return run(command, argc, argv);
  if (name == "--version") {
    comigs::print_out("comigs {} ({})\n", comigs::program_version, comigs::git_commit);
    return 0;
  }
  if (name == "--help" || name == "-h") {
    comigs::print_out(usage());
    return 0;
  }
  comigs::print_error(
      name.empty() ? usage() : fmt::format("comigs: '{}' is no command; 'comigs --help' lists them\n", name));
  return static_cast<int>(comigs::ExitCode::bad_input);
}

}  // namespace

int main(int argc, char** argv) {
  comigs::open_standard_streams();
  keep_others_from_writing();
  find_limits_of_files();
  const int code = run(argc, argv);
  // Only success becomes a failure by it: what asks for another start, or tells of bad input, still does.
  const int lost = comigs::output_error();
  if (lost == 0) return code;
  comigs::print_error(
      fmt::format("comigs: what was printed has not arrived: standard output: {}\n", std::strerror(lost)));
  return code == 0 ? static_cast<int>(comigs::ExitCode::failed) : code;
}
