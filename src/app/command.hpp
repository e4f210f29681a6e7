// The sub-commands, one file each, and what they have in common.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comigs/comm/communicator.hpp"

namespace comigs::app {

int train(int& argc, char**& argv, const std::vector<std::string>& arguments);
int plan(int& argc, char**& argv, const std::vector<std::string>& arguments);
int pretrain(int& argc, char**& argv, const std::vector<std::string>& arguments);
int route(int& argc, char**& argv, const std::vector<std::string>& arguments);
int methods(int& argc, char**& argv, const std::vector<std::string>& arguments);

/// Runs `body` inside an MPI session and turns its end into an exit code. Errors that ranks agreed on end all
/// of them with one code; any other error is one rank's alone and aborts the rest.
int run_with_mpi(int& argc, char**& argv, const std::function<void(comm::Communicator& world)>& body);

}  // namespace comigs::app
