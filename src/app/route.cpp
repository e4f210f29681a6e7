// comigs route: texts through the models that the users of a run ended with, token by token.
#include <fmt/format.h>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/interruption.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/finished/routed_texts.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/device_choice.hpp"
#include "command.hpp"
#include "terminal.hpp"

namespace comigs::app {

namespace {

void print_table(const std::vector<std::string>& users, const std::vector<finished::RoutedText>& texts) {
  std::vector<std::string> head{"text", "tokens", "of user"};
  for (const std::string& user : users) head.push_back(printable(user));
  std::vector<std::vector<std::string>> rows;
  for (const finished::RoutedText& text : texts) {
    const results::TokenRouting& tokens = text.tokens;
    rows.push_back({tokens.name, group_digits(static_cast<std::int64_t>(tokens.ids.size())),
                    tokens.owner.empty() ? "-" : printable(tokens.owner)});
    for (const double share : text.generalist_shares) rows.back().push_back(fmt::format("{:.3f}", share));
  }
  print_out(format_table(head, rows));
}

void route_texts(const config::Route& options) {
  const Stopwatch watch;
  finished::RoutedTexts routed(options);
  const c10::Device device = job::choose_device(options.device, options.threads, comm::place_alone());
  ProgressBar bar(routed.count(), true);
  const std::vector<finished::RoutedText> texts = routed.run(
      device, [&](const std::string& user) { bar.advance(1, fmt::format("model of {}", printable(user))); });
  bar.clear();
  io::check_mapped_files();
  std::vector<results::TokenRouting> tokens;
  for (const finished::RoutedText& text : texts) tokens.push_back(text.tokens);
  comm::Interruption::finish_undisturbed();
  results::StoredRun& run = routed.stored_run();
  run.write_tokens(tokens);
  print_out("comigs route: {}, mean gate weight of generalists over tokens and layers, by whose model\n\n",
            routed.models().method().name);
  print_table(run.record().identity.users, texts);
  print_out("\ntokens: {} ({})\n", run.path().string(), format_duration(watch.seconds()));
}

}  // namespace

int route(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::route_help());
    return 0;
  }
  return run_alone("route", [&] {
    route_texts(config::parse_route(arguments));
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace comigs::app
