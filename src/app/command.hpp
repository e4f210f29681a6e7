// The sub-commands, one file each, and what they have in common.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comigs/comm/communicator.hpp"
#include "comigs/comm/interruption.hpp"

namespace comigs::app {

int train(int& argc, char**& argv, const std::vector<std::string>& arguments);
int plan(int& argc, char**& argv, const std::vector<std::string>& arguments);
int pretrain(int& argc, char**& argv, const std::vector<std::string>& arguments);
int prune(int& argc, char**& argv, const std::vector<std::string>& arguments);
int route(int& argc, char**& argv, const std::vector<std::string>& arguments);
int evaluate(int& argc, char**& argv, const std::vector<std::string>& arguments);
int generate(int& argc, char**& argv, const std::vector<std::string>& arguments);
int inspect(int& argc, char**& argv, const std::vector<std::string>& arguments);
int methods(int& argc, char**& argv, const std::vector<std::string>& arguments);

/// What is known before ranks can speak to each other.
struct Start {
  double patience_seconds = 3600.0;  ///< how long ranks wait for each other; 0: for ever
  std::vector<std::string> users;    ///< whose rank each is; empty: nobody's, or not known
};

using AllRun = std::function<void(comm::Communicator& world, comm::Interruption& interruption)>;

/// Runs `body` inside an MPI session and turns its end into an exit code. Errors that ranks agreed on end all
/// of them with one code; any other error is one rank's alone and aborts the rest. Ranks have names, and a
/// limit to how long they wait for each other, from the start on.
int run_with_mpi(int& argc, char**& argv, const Start& start, const AllRun& body);

/// Runs the `body` of a command that is one process and has no MPI; its result is the exit code. Throws Error
/// with what `body` threw, in our words.
int run_alone(const char* command, const std::function<int()>& body);

}  // namespace comigs::app
