// comigs: federated fine-tuning of language models with mixtures of LoRA experts, one MPI rank a user.
#include <fmt/format.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "comigs/base/error.hpp"
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
    {"route", "run texts through a finished run's users and store every token's gate weights",
     comigs::app::route},
    {"methods", "print the table of methods", comigs::app::methods},
};

void print_usage(std::FILE* stream) {
  fmt::print(stream, "usage: comigs COMMAND [options]\n\n");
  for (const Command& command : commands) fmt::print(stream, "  {:<10} {}\n", command.name, command.summary);
  fmt::print(stream,
             "\n'comigs COMMAND --help' lists a command's options, 'comigs --version' names this build.\n");
}

// Errors of a phase are agreed on by all ranks inside the commands; what comes here comes from before MPI or
// after it.
int run(const Command& command, int argc, char** argv) {
  if (!command.has_mpi) comigs::comm::Interruption::leave_at_once();
  try {
    return command.run(argc, argv, std::vector<std::string>(argv + 2, argv + argc));
  } catch (const comigs::Error& error) {
    fmt::print(stderr, "comigs: {}\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}

// Whatever this process was given: nothing that it writes, temporary or not, is writable for everyone.
void keep_others_from_writing() { umask(umask(0) | S_IWOTH); }

// A signal is to be found by a command that knows what to do about it, not to kill what is still being
// loaded: before LibTorch's own initialisation, which takes longer than everything else before main.
[[gnu::section(".preinit_array"),
  gnu::used]] void (*const hold_signals)() = &comigs::comm::Interruption::hold_signals;

}  // namespace

int main(int argc, char** argv) {
  keep_others_from_writing();
  const std::string name = argc > 1 ? argv[1] : "";
  for (const Command& command : commands)
    if (name == command.name) return run(command, argc, argv);
  if (name == "--version") {
    fmt::print("comigs {} ({})\n", comigs::program_version, comigs::git_commit);
    return 0;
  }
  if (name == "--help" || name == "-h") {
    print_usage(stdout);
    return 0;
  }
  if (name.empty()) {
    print_usage(stderr);
  } else {
    fmt::print(stderr, "comigs: '{}' is no command; 'comigs --help' lists them\n", name);
  }
  return static_cast<int>(comigs::ExitCode::bad_input);
}
