// comigs plan: what a run will take, before it begins. One process, no MPI.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "comigs/base/output.hpp"
#include "comigs/config/describe.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/local_work.hpp"
#include "comigs/job/planned.hpp"
#include "command.hpp"
#include "json_text.hpp"
#include "plan_report.hpp"

namespace comigs::app {

namespace {

// What ranks read at their start, with the checks that they make.
void check_files(const job::Job& job) {
  for (std::size_t user = 0; user < job.users.size(); ++user)
    (void)job::open_user(job.config, job.manifest, user);
}

int print_settings(const std::vector<std::string>& arguments) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, text] : config::settings(config::parse(arguments))) json[name] = text;
  print_out(json_text(json));
  return 0;
}

int plan(const std::vector<std::string>& arguments, bool as_json) {
  const job::Job job = job::read_job(arguments);
  check_files(job);
  if (!job.remark.empty()) print_error(fmt::format("comigs: {}\n", job.remark));
  const job::Plan plan = job::plan(job);
  io::check_mapped_files();
  print_out(as_json ? plan_as_json(plan) : plan_as_text(plan));
  return static_cast<int>(plan.problems.empty() ? ExitCode::done : ExitCode::bad_input);
}

}  // namespace

int plan(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::plan_help());
    return 0;
  }
  std::vector<std::string> options = arguments;
  if (std::erase(options, "--settings") > 0) return print_settings(options);
  const bool as_json = std::erase(options, "--json") > 0;
  return run_alone("plan", [&] { return plan(options, as_json); });
}

}  // namespace comigs::app
