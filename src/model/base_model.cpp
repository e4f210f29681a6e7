#include "comigs/model/base_model.hpp"

#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"
#include "families.hpp"
#include "stored_weights.hpp"

namespace comigs::model {

namespace {

struct Family {
  const char* name;  // Hugging Face's model_type
  Architecture (*read)(const nlohmann::json&, const std::filesystem::path&);
  std::unique_ptr<BaseModel> (*make)(const Architecture&, const WeightSource&, std::optional<at::ScalarType>);
  std::vector<WeightSpec> (*weights)(const Architecture&);
  std::string (*config)(const Architecture&);
  bool (*is_no_weight)(std::string_view);  // of what its files may have besides
};

constexpr Family families[] = {
    {"gpt2", read_gpt2, make_gpt2, gpt2_weights, gpt2_config, is_no_gpt2_weight},
    {"llama", read_llama, make_llama, llama_weights, llama_config, is_no_llama_weight},
    {"mistral", read_llama, make_llama, llama_weights, llama_config, is_no_llama_weight},
    {"qwen2", read_llama, make_llama, llama_weights, llama_config, is_no_llama_weight},
    {"qwen3", read_llama, make_llama, llama_weights, llama_config, is_no_llama_weight},
};

const Family& find_family(const std::string& name, const std::string& where) {
  std::string known;
  for (const Family& family : families) {
    if (name == family.name) return family;
    known += fmt::format("{}'{}'", known.empty() ? "" : ", ", family.name);
  }
  throw DataError(
      fmt::format("{}: model_type '{}' is not supported; known: {}", where, printable(name), known));
}

// What the tensors say beyond the configuration, and that they are the ones which it asks for.
void settle_weights(Architecture& architecture, const Family& family, const std::filesystem::path& folder) {
  const StoredWeights weights(folder);
  // The two matrices that may be one: in every family's files the first and the last.
  Architecture untied = architecture;
  untied.tied_head = false;
  const std::vector<WeightSpec> all = family.weights(untied);
  const WeightSpec &embedding = all.front(), &head = all.back();
  if (!architecture.tied_head && !weights.has(head))
    throw DataError(fmt::format("{}: there is no '{}', but 'tie_word_embeddings' in config.json is false",
                                weights.entry().string(), head.name));
  // As transformers does: a head that differs from the embedding counts, whatever the configuration says.
  if (weights.differ(embedding, head)) architecture.tied_head = false;
  weights.check(family.weights(architecture), family.is_no_weight);
}

}  // namespace

Architecture read_architecture(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  std::error_code error;
  if (!std::filesystem::exists(file, error))
    throw DataError(fmt::format(
        "{}: cannot be opened; a model is a Hugging Face folder with config.json and model.safetensors",
        file.string()));
  const io::MappedFile content(file);
  const nlohmann::json config = io::parse_json(content.bytes(), file.string());
  if (!config.is_object()) throw DataError(fmt::format("{}: not a JSON object", file.string()));
  const auto type = config.find("model_type");
  if (type == config.end() || !type->is_string())
    throw DataError(fmt::format("{}: 'model_type' is missing", file.string()));
  const Family& family = find_family(type->get<std::string>(), file.string());
  Architecture architecture = family.read(config, file);
  settle_weights(architecture, family, folder);
  return architecture;
}

std::unique_ptr<BaseModel> make_base_model(const Architecture& architecture, const WeightSource& weights,
                                           std::optional<at::ScalarType> activations) {
  return find_family(architecture.family, "architecture").make(architecture, weights, activations);
}

std::vector<WeightSpec> weight_specs(const Architecture& architecture) {
  return find_family(architecture.family, "architecture").weights(architecture);
}

std::vector<WeightSpec> weights_of(const Architecture& architecture, const Projection& projection) {
  std::vector<WeightSpec> found;
  const std::string ending = fmt::format(".{}.weight", projection.name);
  for (const WeightSpec& spec : weight_specs(architecture))  // layer by layer
    if (spec.name.ends_with(ending)) found.push_back(spec);
  return found;
}

std::unique_ptr<BaseModel> load_base_model(const std::filesystem::path& folder, at::ScalarType dtype,
                                           const at::Device& device,
                                           std::optional<at::ScalarType> activations) {
  // The configuration first: a folder that is no model at all is told by it.
  const Architecture architecture = read_architecture(folder);
  return make_base_model(architecture, open_weights(folder, dtype, device), activations);
}

std::string config_json(const Architecture& architecture) {
  return find_family(architecture.family, "architecture").config(architecture);
}

void write_base_model(const std::filesystem::path& folder, const Architecture& architecture,
                      const WeightSource& weights) {
  write_weights(folder, weight_specs(architecture), weights);
  io::write_atomically(folder / "config.json", config_json(architecture));
}

}  // namespace comigs::model
