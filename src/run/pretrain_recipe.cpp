#include "comigs/run/pretrain_recipe.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/run/output_folder.hpp"
#include "comigs/run/pretrain_checkpoint.hpp"

namespace comigs::run {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t digest_digits = 64;

// Beside the weights: by which the next call recognises that they are what it would make.
fs::path note_file(const PretrainRecipe& recipe) {
  return fs::path(recipe.plan.output) / "comigs_pretrain.txt";
}

// A batch needs windows of the context and the token after; an evaluation one token to predict.
void check_corpus(const config::Pretrain& plan, const data::BaseShards& corpus) {
  const std::string reason = fmt::format("context_tokens = {}", plan.context_tokens);
  data::require_tokens(corpus.train, plan.context_tokens + 1, reason);
  data::require_tokens(corpus.validation, 2, reason);
}

// It decides no number, and bases from before there was one are to be known again.
std::string without_patience(std::string options) {
  const std::size_t begin = options.find("patience =");
  return options.erase(begin, options.find('\n', begin) + 1 - begin);
}

// Digests in hexadecimal, one or two lines of them.
bool is_note(const std::string& text) {
  return !text.empty() && text.size() % (digest_digits + 1) == 0 &&
         text.find_first_not_of("0123456789abcdef\n") == text.npos;
}

std::string read_note(const PretrainRecipe& recipe) {
  std::error_code none;
  if (!fs::is_regular_file(note_file(recipe), none)) return {};
  std::ifstream stream(note_file(recipe));
  return {std::istreambuf_iterator<char>(stream), {}};
}

fs::path weights_file(const PretrainRecipe& recipe) {
  return fs::path(recipe.plan.output) / "model.safetensors";
}

// What is written last: a model of other options, or of another call, does not have these weights.
std::string finished_note(const PretrainRecipe& recipe) {
  return recipe.digest + "\n" + sha256_of_file(weights_file(recipe)) + "\n";
}

}  // namespace

PretrainRecipe read_pretrain_recipe(const std::vector<std::string>& arguments) {
  PretrainRecipe recipe{
      .plan = config::parse_pretrain(arguments), .manifest = {}, .options = {}, .digest = {}};
  recipe.manifest = data::read_manifest(recipe.plan.data);
  if (!recipe.manifest.base)
    throw DataError(
        fmt::format("{}/manifest.json: no base corpus to pretrain on ('base' is missing)", recipe.plan.data));
  data::check_tokeniser(recipe.manifest);
  check_corpus(recipe.plan, *recipe.manifest.base);
  check_output(recipe.plan.output);
  config::Pretrain numbers = recipe.plan;
  numbers.output = "-";
  numbers.data = "-";
  numbers.device = config::DeviceChoice::automatic;
  numbers.threads = 0;
  recipe.options = without_patience(config::echo(numbers));
  recipe.digest = sha256(recipe.options + recipe.manifest.digest);
  return recipe;
}

bool is_made(const PretrainRecipe& recipe) {
  std::error_code none;
  return read_note(recipe).starts_with(recipe.digest) && fs::exists(weights_file(recipe), none) &&
         fs::exists(fs::path(recipe.plan.output) / "config.json", none) &&
         read_note(recipe) == finished_note(recipe);
}

void claim_folder(const PretrainRecipe& recipe) {
  const fs::path folder = recipe.plan.output;
  const std::string note = read_note(recipe);
  const bool is_own = note == recipe.digest + "\n";
  const std::string checkpoint = PretrainCheckpoint::path_in(folder).filename().string();
  for (const std::string& name : {std::string("config.json"), std::string("model.safetensors"),
                                  std::string("tokenizer.json"), checkpoint})
    if (fs::exists(fs::symlink_status(folder / name)) && (!is_own || name == "config.json"))
      throw ConfigError(
          fmt::format("--output {}: holds a model's {} already, which this call would not have made; remove "
                      "it or name another folder",
                      recipe.plan.output, name));
  if (fs::exists(fs::symlink_status(note_file(recipe))) && !is_note(note))
    throw ConfigError(fmt::format("{}: found something else, expected none or a note of comigs pretrain",
                                  note_file(recipe).string()));
  io::write_atomically(note_file(recipe), recipe.digest + "\n");
}

void write_base(const PretrainRecipe& recipe, const train::Pretraining& pretraining) {
  const fs::path folder = recipe.plan.output;
  io::write_atomically(folder / "tokenizer.json", io::MappedFile(recipe.manifest.tokeniser).bytes());
  pretraining.write(folder);
  io::write_atomically(note_file(recipe), finished_note(recipe));
}

}  // namespace comigs::run
