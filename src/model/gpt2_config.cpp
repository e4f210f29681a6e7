// GPT-2 on paper: its sizes, its config.json, the list of its weights.
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "families.hpp"

namespace comigs::model {

namespace {

class Config {
 public:
  Config(const nlohmann::json& values, const std::filesystem::path& file) : values_(values), file_(file) {}

  [[noreturn]] void fail(const char* name, const std::string& found, const std::string& expected) const {
    throw DataError(
        fmt::format("{}: '{}' is {}, expected {}", file_.string(), name, printable(found), expected));
  }

  // `alias` is transformers' own name for it, which a file may have instead or as well.
  [[nodiscard]] std::int64_t size(const char* name, const char* alias, std::int64_t largest) const {
    const char* const given = !values_.contains(name) && values_.contains(alias) ? alias : name;
    const std::string expected = fmt::format("a whole number from 1 to {}", largest);
    const auto entry = values_.find(given);
    if (entry == values_.end()) fail(name, "missing", expected);
    if (!entry->is_number_integer() || entry->get<std::int64_t>() < 1 || entry->get<std::int64_t>() > largest)
      fail(given, entry->dump(), expected);
    insist(alias, *entry);
    return entry->get<std::int64_t>();
  }

  [[nodiscard]] bool flag(const char* name, bool absent) const {
    const auto entry = values_.find(name);
    if (entry == values_.end()) return absent;
    if (!entry->is_boolean()) fail(name, entry->dump(), "true or false");
    return entry->get<bool>();
  }

  // Settings that change what is computed: we know one value of each.
  void insist(const char* name, const nlohmann::json& value) const {
    const auto entry = values_.find(name);
    if (entry != values_.end() && !entry->is_null() && *entry != value)
      fail(name, entry->dump(), value.dump());
  }

  // The same where transformers has several names for it.
  void insist_on_one(const char* name, const nlohmann::json& found,
                     std::initializer_list<const char*> known) const {
    if (std::find(known.begin(), known.end(), found) == known.end())
      fail(name, found.dump(), fmt::format("one of {}", fmt::join(known, ", ")));
  }

  [[nodiscard]] nlohmann::json value(const char* name, const nlohmann::json& absent) const {
    const auto entry = values_.find(name);
    return entry == values_.end() || entry->is_null() ? absent : *entry;
  }

 private:
  const nlohmann::json& values_;
  const std::filesystem::path& file_;
};

// What makes another model of the same sizes.
void check_settings(const Config& config, const Architecture& architecture) {
  for (const nlohmann::json& name : config.value("architectures", nlohmann::json::array()))
    config.insist_on_one("architectures", name, {"GPT2LMHeadModel", "GPT2Model"});
  // One function, in transformers' several ways to write it.
  config.insist_on_one("activation_function", config.value("activation_function", "gelu_new"),
                       {"gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"});
  config.insist("n_inner", architecture.inner);
  config.insist("scale_attn_weights", true);
  config.insist("scale_attn_by_inverse_layer_idx", false);
  config.insist("add_cross_attention", false);
  config.insist("is_encoder_decoder", false);
  config.insist("pruned_heads", nlohmann::json::object());
  config.insist("quantization_config", nullptr);
  config.insist("auto_map", nullptr);  // code of its own
}

}  // namespace

Architecture gpt2_architecture(std::int64_t layers, std::int64_t width, std::int64_t heads,
                               std::int64_t vocabulary, std::int64_t positions) {
  const std::int64_t inner = 4 * width;
  return {.family = "gpt2",
          .layers = layers,
          .width = width,
          .heads = heads,
          .key_value_heads = heads,
          .head_size = width / heads,
          .inner = inner,
          .vocabulary = vocabulary,
          .positions = positions,
          .norm_epsilon = 1e-5,
          .attention = {{"attn.c_attn", width, 3 * width}, {"attn.c_proj", width, width}},
          .up = {{"mlp.c_fc", width, inner}},
          .down = {"mlp.c_proj", inner, width}};
}

Architecture read_gpt2(const nlohmann::json& values, const std::filesystem::path& file) {
  const Config config(values, file);
  Architecture architecture = gpt2_architecture(
      config.size("n_layer", "num_hidden_layers", 1000), config.size("n_embd", "hidden_size", 1 << 16),
      config.size("n_head", "num_attention_heads", 1 << 16), config.size("vocab_size", "vocab_size", 1 << 24),
      config.size("n_positions", "max_position_embeddings", 1 << 24));
  if (architecture.width % architecture.heads != 0)
    config.fail("n_head", std::to_string(architecture.heads),
                fmt::format("a divisor of n_embd = {}", architecture.width));
  check_settings(config, architecture);
  architecture.tied_head = config.flag("tie_word_embeddings", true);
  if (const auto epsilon = values.find("layer_norm_epsilon"); epsilon != values.end()) {
    if (!epsilon->is_number() || !(epsilon->get<double>() > 0.0) || epsilon->get<double>() > 1.0)
      config.fail("layer_norm_epsilon", epsilon->dump(), "a number above 0, at most 1");
    architecture.norm_epsilon = epsilon->get<double>();
  }
  return architecture;
}

std::vector<WeightSpec> gpt2_weights(const Architecture& architecture) {
  using Kind = WeightSpec::Kind;
  const std::int64_t C = architecture.width, F = architecture.inner;
  const std::string head = "lm_head.weight";
  // Writers that keep one of two equal tensors may have kept the head.
  std::vector<WeightSpec> weights = {{.name = "wte.weight",
                                      .shape = {architecture.vocabulary, C},
                                      .kind = Kind::embedding,
                                      .alternative = architecture.tied_head ? head : ""},
                                     {"wpe.weight", {architecture.positions, C}, Kind::embedding}};
  for (std::int64_t layer = 0; layer < architecture.layers; ++layer) {
    const auto add = [&](const char* name, std::vector<std::int64_t> shape, Kind kind) {
      weights.push_back({fmt::format("h.{}.{}", layer, name), std::move(shape), kind});
    };
    add("ln_1.weight", {C}, Kind::scale);
    add("ln_1.bias", {C}, Kind::bias);
    add("attn.c_attn.weight", {C, 3 * C}, Kind::matrix);
    add("attn.c_attn.bias", {3 * C}, Kind::bias);
    add("attn.c_proj.weight", {C, C}, Kind::residual_matrix);
    add("attn.c_proj.bias", {C}, Kind::bias);
    add("ln_2.weight", {C}, Kind::scale);
    add("ln_2.bias", {C}, Kind::bias);
    add("mlp.c_fc.weight", {C, F}, Kind::matrix);
    add("mlp.c_fc.bias", {F}, Kind::bias);
    add("mlp.c_proj.weight", {F, C}, Kind::residual_matrix);
    add("mlp.c_proj.bias", {C}, Kind::bias);
  }
  weights.push_back({"ln_f.weight", {C}, Kind::scale});
  weights.push_back({"ln_f.bias", {C}, Kind::bias});
  if (!architecture.tied_head) weights.push_back({head, {architecture.vocabulary, C}, Kind::head});
  return weights;
}

bool is_no_gpt2_weight(std::string_view name) {
  return name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"));
}

std::string gpt2_config(const Architecture& architecture) {
  const nlohmann::ordered_json config = {
      {"architectures", {"GPT2LMHeadModel"}},
      {"model_type", "gpt2"},
      {"activation_function", "gelu_new"},
      {"n_layer", architecture.layers},
      {"n_embd", architecture.width},
      {"n_head", architecture.heads},
      {"n_positions", architecture.positions},
      {"n_ctx", architecture.positions},
      {"vocab_size", architecture.vocabulary},
      {"bos_token_id", nullptr},  // GPT-2's own would lie outside a small vocabulary
      {"eos_token_id", nullptr},
      {"layer_norm_epsilon", architecture.norm_epsilon},
      {"tie_word_embeddings", architecture.tied_head},
      {"attn_pdrop", 0.0},
      {"embd_pdrop", 0.0},
      {"resid_pdrop", 0.0}};
  return config.dump(2) + "\n";
}

}  // namespace comigs::model
