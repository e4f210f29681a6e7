// The Llama family on paper: its sizes, its config.json, the list of its weights. Its members differ in
// flags.
#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "comigs/model/config_file.hpp"
#include "families.hpp"

namespace comigs::model {

namespace {

// What transformers takes for each member of the family; 0: as many as `absent` says there.
struct Member {
  const char *type, *class_name;
  std::int64_t key_value_heads, head_size;  // where config.json says nothing
  bool query_bias, head_norms;
  bool biases_by_config;  // attention_bias, mlp_bias
  std::int64_t window;    // sliding_window where config.json says nothing; 0: it has none
};

constexpr Member members[] = {
    {"llama", "Llama", 0, 0, false, false, true, 0},
    {"mistral", "Mistral", 8, 0, false, false, false, 4096},
    {"qwen2", "Qwen2", 32, 0, true, false, false, 0},
    {"qwen3", "Qwen3", 32, 128, false, true, true, 0},
};

const Member& member(const std::string& type) {
  for (const Member& one : members)
    if (type == one.type) return one;
  throw DataError(fmt::format("'{}' is no member of the Llama family", type));
}

constexpr std::int64_t most = 1 << 24;

// The names of a scaling, in order: none, linear, llama3.
constexpr const char* scalings[] = {"default", "linear", "llama3"};

// transformers 5 has all in "rope_parameters", before it "rope_theta" and "rope_scaling", whose type was once
// called "type".
Rotary read_rotary(const ConfigFile& config, std::int64_t positions) {
  const nlohmann::json together = config.value("rope_parameters", nullptr),
                       apart = config.value("rope_scaling", nullptr),
                       given = together.is_null() ? apart : together;
  const nlohmann::json values = given.is_null() ? nlohmann::json::object() : given;
  if (!values.is_object()) config.fail("rope_scaling", values.dump(), "an object or null");
  const ConfigFile rope(values, config.file());
  Rotary rotary;
  rotary.theta = (rope.has("rope_theta") ? rope : config).number_or("rope_theta", 10000.0, 0.0, 1e12);
  const nlohmann::json type = rope.value("rope_type", rope.value("type", "default"));
  rope.insist_on_one("rope_type", type, {scalings[0], scalings[1], scalings[2]});
  if (type == scalings[0]) return rotary;
  rotary.scaling = type == scalings[1] ? Rotary::Scaling::linear : Rotary::Scaling::llama3;
  const auto needed = [&](const char* name, double most_of_it) {
    if (!values.contains(name)) rope.fail(name, "missing", "a number, as 'rope_type' asks for it");
    return rope.number_or(name, 0.0, 0.0, most_of_it);
  };
  rotary.factor = needed("factor", 1e6);
  if (rotary.scaling == Rotary::Scaling::linear) return rotary;
  rotary.low = needed("low_freq_factor", 1e6);
  rotary.high = needed("high_freq_factor", 1e6);
  if (rotary.high <= rotary.low)
    rope.fail("high_freq_factor", std::to_string(rotary.high), "more than 'low_freq_factor'");
  rotary.original = rope.size_or("original_max_position_embeddings", positions, most);
  return rotary;
}

// Positions that full attention is right for: where a window is shorter, no further than it.
std::int64_t read_positions(const ConfigFile& config, const Member& one) {
  const std::int64_t positions = config.size("max_position_embeddings", "max_position_embeddings", most);
  std::int64_t window = 0;
  if (one.window > 0) {
    window = config.has("sliding_window") ? config.size_or("sliding_window", 0, most) : one.window;
  } else if (config.flag("use_sliding_window", false)) {
    window = config.size("sliding_window", "sliding_window", most);
  }
  return window > 0 ? std::min(window, positions) : positions;
}

void check_settings(const ConfigFile& config, const Member& one) {
  const std::string head = std::string(one.class_name) + "ForCausalLM",
                    body = std::string(one.class_name) + "Model";
  for (const nlohmann::json& name : config.value("architectures", nlohmann::json::array()))
    config.insist_on_one("architectures", name, {head.c_str(), body.c_str()});
  config.insist_on_one("hidden_act", config.value("hidden_act", "silu"), {"silu", "swish"});
  for (const nlohmann::json& type : config.value("layer_types", nlohmann::json::array()))
    if (!config.flag("use_sliding_window", false))
      config.insist_on_one("layer_types", type, {"full_attention"});
  config.insist("partial_rotary_factor", 1.0);
  config.insist("is_encoder_decoder", false);
  config.insist("quantization_config", nullptr);
  config.insist("auto_map", nullptr);  // code of its own
  if (!one.biases_by_config) {
    config.insist("attention_bias", one.query_bias);
    config.insist("mlp_bias", false);
  }
}

}  // namespace

Architecture read_llama(const nlohmann::json& values, const std::filesystem::path& file) {
  const ConfigFile config(values, file);
  const Member& one = member(values.at("model_type").get<std::string>());
  check_settings(config, one);
  Architecture a;
  a.family = one.type;
  a.layers = config.size("num_hidden_layers", "num_hidden_layers", 1000);
  a.width = config.size("hidden_size", "hidden_size", 1 << 16);
  a.heads = config.size("num_attention_heads", "num_attention_heads", 1 << 16);
  a.inner = config.size("intermediate_size", "intermediate_size", 1 << 20);
  a.vocabulary = config.size("vocab_size", "vocab_size", most);
  a.positions = read_positions(config, one);
  a.key_value_heads =
      config.size_or("num_key_value_heads", one.key_value_heads > 0 ? one.key_value_heads : a.heads, 1 << 16);
  if (a.heads % a.key_value_heads != 0)
    config.fail("num_key_value_heads", std::to_string(a.key_value_heads),
                fmt::format("a divisor of num_attention_heads = {}", a.heads));
  const bool by_width = one.head_size == 0 && config.value("head_dim", nullptr).is_null();
  if (by_width && a.width % a.heads != 0)
    config.fail("num_attention_heads", std::to_string(a.heads),
                fmt::format("a divisor of hidden_size = {}, or 'head_dim' given", a.width));
  a.head_size = config.size_or("head_dim", by_width ? a.width / a.heads : one.head_size, 1 << 12);
  if (a.head_size % 2 != 0) config.fail("head_dim", std::to_string(a.head_size), "an even number");
  a.norm_epsilon = config.number_or("rms_norm_eps", 1e-6, 0.0, 1.0);
  a.activation = Activation::silu_gated;
  a.rotary = read_rotary(config, a.positions);
  const bool attention_bias = one.biases_by_config && config.flag("attention_bias", false);
  a.query_bias = one.query_bias || attention_bias;
  a.output_bias = attention_bias;
  a.mlp_bias = one.biases_by_config && config.flag("mlp_bias", false);
  a.head_norms = one.head_norms;
  a.tied_head = config.flag("tie_word_embeddings", false);
  const std::int64_t Q = a.heads * a.head_size, K = a.key_value_heads * a.head_size;
  a.attention = {{"self_attn.q_proj", a.width, Q},
                 {"self_attn.k_proj", a.width, K},
                 {"self_attn.v_proj", a.width, K},
                 {"self_attn.o_proj", Q, a.width}};
  a.up = {{"mlp.gate_proj", a.width, a.inner}, {"mlp.up_proj", a.width, a.inner}};
  a.down = {"mlp.down_proj", a.inner, a.width};
  return a;
}

std::vector<WeightSpec> llama_weights(const Architecture& a) {
  using Kind = WeightSpec::Kind;
  const std::string head = "lm_head.weight";
  // Writers that keep one of two equal tensors may have kept the head.
  std::vector<WeightSpec> weights = {{.name = "embed_tokens.weight",
                                      .shape = {a.vocabulary, a.width},
                                      .kind = Kind::embedding,
                                      .alternative = a.tied_head ? head : ""}};
  for (std::int64_t layer = 0; layer < a.layers; ++layer) {
    const std::string place = fmt::format("layers.{}.", layer);
    const auto scale = [&](const char* name, std::int64_t width) {
      weights.push_back({place + name, {width}, Kind::scale});
    };
    const auto matrix = [&](const Projection& projection, Kind kind, bool biased) {
      weights.push_back({place + projection.name + ".weight", {projection.out, projection.in}, kind});
      if (biased) weights.push_back({place + projection.name + ".bias", {projection.out}, Kind::bias});
    };
    scale("input_layernorm.weight", a.width);
    for (std::size_t site = 0; site < 3; ++site) matrix(a.attention[site], Kind::matrix, a.query_bias);
    if (a.head_norms) {
      scale("self_attn.q_norm.weight", a.head_size);
      scale("self_attn.k_norm.weight", a.head_size);
    }
    matrix(a.attention[3], Kind::residual_matrix, a.output_bias);
    scale("post_attention_layernorm.weight", a.width);
    for (const Projection& up : a.up) matrix(up, Kind::matrix, a.mlp_bias);
    matrix(a.down, Kind::residual_matrix, a.mlp_bias);
  }
  weights.push_back({"norm.weight", {a.width}, Kind::scale});
  // The head is no part of the network that transformers calls "model".
  for (WeightSpec& spec : weights) spec.prefix = "model.";
  if (!a.tied_head) weights.push_back({head, {a.vocabulary, a.width}, Kind::head});
  return weights;
}

bool is_no_llama_weight(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

std::string llama_config(const Architecture& a) {
  const Member& one = member(a.family);
  nlohmann::ordered_json config = {{"architectures", {std::string(one.class_name) + "ForCausalLM"}},
                                   {"model_type", one.type},
                                   {"hidden_act", "silu"},
                                   {"num_hidden_layers", a.layers},
                                   {"hidden_size", a.width},
                                   {"num_attention_heads", a.heads},
                                   {"num_key_value_heads", a.key_value_heads},
                                   {"head_dim", a.head_size},
                                   {"intermediate_size", a.inner},
                                   {"max_position_embeddings", a.positions},
                                   {"vocab_size", a.vocabulary},
                                   {"bos_token_id", nullptr},
                                   {"eos_token_id", nullptr},
                                   {"rms_norm_eps", a.norm_epsilon},
                                   {"tie_word_embeddings", a.tied_head},
                                   {"rope_theta", a.rotary.theta},
                                   {"rope_scaling", nullptr}};
  if (a.rotary.scaling != Rotary::Scaling::none)
    config["rope_scaling"] = {{"rope_type", scalings[static_cast<int>(a.rotary.scaling)]},
                              {"factor", a.rotary.factor}};
  if (a.rotary.scaling == Rotary::Scaling::llama3)
    config["rope_scaling"].update({{"low_freq_factor", a.rotary.low},
                                   {"high_freq_factor", a.rotary.high},
                                   {"original_max_position_embeddings", a.rotary.original}});
  if (one.biases_by_config) config["attention_bias"] = a.output_bias;
  if (one.biases_by_config) config["mlp_bias"] = a.mlp_bias;
  if (one.window > 0) config["sliding_window"] = nullptr;
  return config.dump(2) + "\n";
}

}  // namespace comigs::model
