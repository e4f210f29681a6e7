// GPT-2 on paper: its sizes, its config.json, the list of its weights.
#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "comigs/model/config_file.hpp"
#include "families.hpp"

namespace comigs::model {

namespace {

// What makes another model of the same sizes.
void check_settings(const ConfigFile& config, const Architecture& architecture) {
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
  const ConfigFile config(values, file);
  Architecture architecture = gpt2_architecture(
      config.size("n_layer", "num_hidden_layers", 1000), config.size("n_embd", "hidden_size", 1 << 16),
      config.size("n_head", "num_attention_heads", 1 << 16), config.size("vocab_size", "vocab_size", 1 << 24),
      config.size("n_positions", "max_position_embeddings", 1 << 24));
  if (architecture.width % architecture.heads != 0)
    config.fail("n_head", std::to_string(architecture.heads),
                fmt::format("a divisor of n_embd = {}", architecture.width));
  check_settings(config, architecture);
  architecture.tied_head = config.flag("tie_word_embeddings", true);
  architecture.norm_epsilon = config.number_or("layer_norm_epsilon", 1e-5, 0.0, 1.0);
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
      const bool is_map = kind == Kind::matrix || kind == Kind::residual_matrix;
      weights.push_back({.name = fmt::format("h.{}.{}", layer, name),
                         .shape = std::move(shape),
                         .kind = kind,
                         .is_in_out = is_map});
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
  // As transformers names it: the head is no part of the network that it calls "transformer".
  for (WeightSpec& spec : weights) spec.prefix = "transformer.";
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
