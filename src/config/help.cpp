#include "comigs/config/describe.hpp"
#include "comigs/config/option.hpp"

#include "schema.hpp"

#include <fmt/format.h>

namespace comigs::config {
namespace {

constexpr std::size_t width = 100, text_column = 38;

/// The text in lines that begin at `column`; the first is already that far.
std::string wrapped(std::string_view text, std::size_t column) {
  std::string result;
  while (column + text.size() > width) {
    const std::size_t end = text.rfind(' ', width - column);
    if (end == text.npos) break;
    result += fmt::format("{}\n{:{}}", text.substr(0, end), "", column);
    text.remove_prefix(end + 1);
  }
  return result + std::string(text) + "\n";
}

template <class Record>
std::string option_help(const Option<Record>& option) {
  const OptionInfo& info = option.info;
  const std::string head = fmt::format("  --{}{}{}", info.flag(), info.value.empty() ? "" : " ", info.value);
  std::string text(info.help);
  if (info.is_word) text += ": " + info.type();
  const std::string value = option.print(Record{});
  if (!value.empty()) text += fmt::format(" [{}]", value);
  if (value.empty() && info.extra.required) text += " (required)";
  return fmt::format("{:<{}}{}", head, text_column, wrapped(text, text_column));
}

template <class Record>
std::string options_help(const Table<Record>& table) {
  std::string text;
  for (const Section& section : table.sections) {
    text += fmt::format("\n[{}]  {}", section.name, wrapped(section.help, section.name.size() + 4));
    for (const Option<Record>& option : table.options) {
      if (option.info.section == section.name) text += option_help(option);
    }
  }
  return text;
}

}  // namespace

std::string OptionInfo::flag() const {
  return extra.flag.empty() ? respelled(name, '_', '-') : std::string(extra.flag);
}

std::string help() {
  return "Usage: mpirun -n USERS comigs train [JOB.ini] [--OPTION VALUE ...]\n"
         "\n"
         "Fine-tunes a language model with as many users as there are ranks. Defaults stand in [brackets];\n"
         "the job file beats them, and the command line beats the job file.\n" +
         options_help(job_table()) +
         "\n"
         "A job file is an INI file with the sections above, # before a comment, and names with "
         "underscores:\n"
         "  [data]\n"
         "  folder = runs/data            # --data; likewise [model] folder is --model, [method] name "
         "--method\n"
         "  [user]\n"
         "  batch_sequences = 16          # every user\n"
         "  [user.0]\n"
         "  experts = 4                   # the first user only\n"
         "  [job]\n"
         "  inherit = other.ini           # whose settings this file changes; relative to this file\n"
         "Folders are relative to the working directory.\n";
}

std::string plan_help() {
  return "Usage: comigs plan [JOB.ini] [--json] [--OPTION VALUE ...]\n"
         "\n"
         "Says what a run of comigs train with the same options will take of each user: trainable "
         "parameters,\n"
         "peak memory, FLOPs, bytes sent and time, and what will not fit, with an option that makes it fit.\n"
         "Needs no mpirun: there are as many users as the data set has. Memory is reckoned from shapes; time "
         "is\n"
         "measured in some seconds of steps on this machine, as if all users ran on it at once.\n"
         "\n"
         "  --json                              one JSON object instead of tables, with every option as it "
         "acts\n"
         "  --settings                          only what job file and command line say, as one JSON object\n"
         "\n"
         "Users with a memory budget are held to it; where any has none, all users together are held to "
         "this\n"
         "machine's memory, or each to its GPU's. Exit code 2: something does not fit.\n"
         "\n"
         "'comigs train --help' explains all other options.\n";
}

std::string pretrain_help() {
  return "Usage: mpirun -n RANKS comigs pretrain [JOB.ini] [--OPTION VALUE ...]\n"
         "\n"
         "Trains a small GPT-2 from scratch and writes it as a Hugging Face folder. Defaults stand in\n"
         "[brackets]; a file with the section [pretrain] beats them, and the command line beats the file.\n" +
         options_help(pretrain_table());
}

std::string prune_help() {
  return "Usage: comigs prune --model FOLDER --data FOLDER --output FOLDER --sparsity SHARE [...]\n"
         "       comigs prune --model FOLDER --data FOLDER --output FOLDER --pattern zeros=N,of=M [...]\n"
         "\n"
         "Sets weights of the linear maps in a base model's blocks to zero and writes the model as a "
         "Hugging\n"
         "Face folder in its own precision: by magnitude, by magnitude times the norm of the weight's input\n"
         "(wanda), or so that the others make up for it (sparsegpt). Needs no mpirun. Defaults stand in\n"
         "[brackets].\n" +
         options_help(prune_table());
}

std::string route_help() {
  return "Usage: comigs route RUN [--OPTION VALUE ...]\n"
         "\n"
         "Runs texts through the models that every user of a finished run (its folder or its results.h5) "
         "ended\n"
         "with, and adds each token's gate weights in every layer to results.h5, as tokens/<text>. Of\n"
         "instruction data, example by example. Needs no mpirun. Defaults stand in [brackets].\n" +
         options_help(route_table());
}

std::string evaluate_help() {
  return "Usage: comigs evaluate RUN [--OPTION VALUE ...]\n"
         "       comigs evaluate --model FOLDER --data FOLDER [--OPTION VALUE ...]\n"
         "\n"
         "Perplexity on every user's texts: of the models that the users of a finished run (its folder or\n"
         "its results.h5) ended with, or of a base model alone. Every token of a split but its first is\n"
         "predicted once, from those before it in windows that do not overlap, as runs evaluate; of\n"
         "instruction data, every token of a response and no other, from those before it in its example.\n"
         "Needs no mpirun. Defaults stand in [brackets].\n" +
         options_help(evaluate_table());
}

std::string generate_help() {
  return "Usage: comigs generate RUN --prompts FILE [--OPTION VALUE ...]\n"
         "       comigs generate --model FOLDER --prompts FILE [--OPTION VALUE ...]\n"
         "\n"
         "Continues texts by the models that the users of a finished run (its folder or its results.h5)\n"
         "ended with, or by a base model alone, up to the token that ends a text. 'python -m data_prep\n"
         "generate' takes the text itself. Needs no mpirun. Defaults stand in [brackets].\n" +
         options_help(generate_table());
}

}  // namespace comigs::config
