// comigs generate: finished models continue texts.
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/base/output.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/comm/placement.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/finished/continuations.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/job/device_choice.hpp"
#include "command.hpp"
#include "json_text.hpp"

namespace comigs::app {

namespace {

using finished::Continuation;
using finished::Continuations;

nlohmann::ordered_json as_json(const Continuation& one, const std::optional<std::string>& text) {
  using Json = nlohmann::ordered_json;
  return {{"model", one.model.empty() ? Json() : Json(one.model)},
          {"prompt", one.prompt},
          {"ids", one.ids},
          {"ended", one.has_ended},
          {"text", text ? Json(*text) : Json()}};
}

// What a model writes must not drive the terminal; its lines are lines.
std::string shown(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F; }, '?');
  for (std::size_t i = 0; i + 1 < text.size(); ++i)  // U+0080 to U+009F
    if (text[i] == '\xC2' && static_cast<unsigned char>(text[i + 1]) < 0xA0) text.replace(i, 2, "?");
  return text;
}

std::string as_text(const Continuation& one, const std::optional<std::string>& text) {
  const std::string model = one.model.empty() ? "base model" : printable(one.model);
  const std::string written = text ? shown(*text) : fmt::format("{}", fmt::join(one.ids, " "));
  return fmt::format("{}, after '{}', {} tokens{}:\n{}\n\n", model, printable(one.prompt), one.ids.size(),
                     one.has_ended ? " up to the text's end" : "", written);
}

void generate(const config::Generate& options) {
  const Continuations continuations(options);
  const c10::Device device =
      job::choose_device(options.models.device, options.models.threads, comm::place_alone());
  ProgressBar bar(continuations.count(), !options.json);
  const std::vector<Continuation> found = continuations.run(device, [&](const std::string& model) {
    bar.advance(1, fmt::format("model of {}", printable(model)));
  });
  bar.clear();
  io::check_mapped_files();
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Continuation& one : found) {
    const std::optional<std::string> text = continuations.text_of(one);
    if (options.json)
      rows.push_back(as_json(one, text));
    else
      print_out(as_text(one, text));
  }
  if (options.json)
    print_out(json_text({{"base", continuations.models().config().model.folder}, {"continuations", rows}}));
}

}  // namespace

int generate(int&, char**&, const std::vector<std::string>& arguments) {
  if (config::wants_help(arguments)) {
    print_out(config::generate_help());
    return 0;
  }
  return run_alone("generate", [&] {
    generate(config::parse_generate(arguments));
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace comigs::app
