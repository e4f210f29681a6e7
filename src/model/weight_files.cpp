#include "weight_files.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"

namespace comigs::model {

namespace {

namespace fs = std::filesystem;

constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::is_symlink(fs::symlink_status(path, error)) || fs::exists(path, error);
}

struct Instead {
  std::string_view beginning, ending;
  const char* advice;
};

constexpr const char* convert =
    "which comigs does not read; convert it with transformers: "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)";

// The first that a folder without safetensors of its own has is told.
constexpr Instead others[] = {
    {"", ".incomplete", "a download that has not ended; download the model again"},
    {"adapter_model", ".safetensors",
     "an adapter of PEFT, not a model; train from it beside its base (--init-adapter), or merge the two with "
     "peft: "
     "AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)"},
    {"", ".safetensors",
     "not named as transformers does, with no index that says what it holds; write the model anew with "
     "transformers' save_pretrained"},
    {"pytorch_model", "", convert},
    {"tf_model", ".h5", convert},
    {"flax_model", ".msgpack", convert},
    {"", ".gguf", "a format of llama.cpp, which comigs does not read"}};

[[noreturn]] void refuse_absent(const fs::path& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    names.insert(entry.path().filename().string());
  for (const Instead& other : others)
    for (const std::string& name : names)
      if (name.starts_with(other.beginning) && name.ends_with(other.ending))
        throw DataError(fmt::format("{}: there is no {}, but {}: {}", folder.string(), single_file,
                                    printable(name), other.advice));
  throw DataError(fmt::format("{}: there is neither {} nor {}", folder.string(), single_file, index_file));
}

std::map<std::string, std::string> read_index(const fs::path& file) {
  const io::MappedFile content(file);
  const nlohmann::json index = io::parse_json(content.bytes(), file.string());
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty())
    throw DataError(
        fmt::format("{}: 'weight_map' is missing or not an object of tensors and files", file.string()));
  std::map<std::string, std::string> promised;
  for (const auto& [tensor, shard] : map->items()) {
    const std::string name = shard.is_string() ? shard.get<std::string>() : "";
    if (name.empty() || name.find('/') != name.npos || name == "." || name == ".." ||
        printable(name, name.size()) != name)
      throw DataError(fmt::format("{}: 'weight_map' has {} for '{}', expected the name of a file beside it",
                                  file.string(), printable(shard.dump()), printable(tensor)));
    promised[tensor] = name;
  }
  return promised;
}

}  // namespace

WeightFiles find_weight_files(const fs::path& folder) {
  if (is_there(folder / single_file))
    return {.entry = folder / single_file, .files = {folder / single_file}, .promised = {}};
  if (!is_there(folder / index_file)) refuse_absent(folder);
  WeightFiles found{.entry = folder / index_file, .files = {}, .promised = read_index(folder / index_file)};
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : found.promised) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (!is_there(folder / shard))
      throw DataError(fmt::format("{}: it names {}, which is not there; download it too",
                                  found.entry.string(), printable(shard)));
    found.files.push_back(folder / shard);
  }
  return found;
}

}  // namespace comigs::model
