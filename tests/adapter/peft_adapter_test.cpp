// A user's LoRAs begin as those of a PEFT folder: the same function at any rank and scale, or a refusal.
#include "comigs/adapter/peft_adapter.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

#include "comigs/adapter/lora_experts.hpp"
#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

namespace {

using test::check_contains;
using test::message_of;
using test::same_bits;

constexpr const char* plain = R"({"peft_type": "LORA", "r": 3, "lora_alpha": 6})";
constexpr const char *attention = "transformer.h.0.attn.c_attn", *up = "transformer.h.1.mlp.c_fc",
                     *down = "transformer.h.1.mlp.c_proj";

// An adapter of rank 3 beside one projection of attention and both of the second layer's MLP.
struct Folder : TemporaryFolder {
  const model::Architecture architecture = test::tiny_architecture();
  std::uint32_t draws = 0;
  test::Weights tensors;

  Folder() {
    add(attention, 16, 48);
    add(up, 16, 64);
    add(down, 64, 16);
  }

  void add(const std::string& module, std::int64_t in, std::int64_t out, std::int64_t rank = 3) {
    tensors[module + ".lora_A.weight"] = test::normal({rank, in}, ++draws, 0.3);
    tensors[module + ".lora_B.weight"] = test::normal({out, rank}, ++draws, 0.3);
  }
  at::Tensor& at(const std::string& module, const char* factor) {
    return tensors.at(fmt::format("{}.lora_{}.weight", module, factor));
  }

  [[nodiscard]] PeftAdapter read(const std::string& config = plain) const {
    test::write_text(folder / "adapter_config.json", config);
    test::write_weights_file(folder / "adapter_model.safetensors", tensors, "base_model.model.");
    return {folder, architecture};
  }
  [[nodiscard]] std::string refusal(const std::string& config = plain) const {
    return message_of<DataError>([&] { (void)read(config); });
  }
  [[nodiscard]] Parameters begun(const UserModel& user_model, const PeftAdapter& adapter) const {
    Parameters parameters(architecture, user_model, at::kCPU);
    parameters.initialise(1, 0);
    adapter.put_into(parameters);
    return parameters;
  }
};

// What a LoRA adds, and what the adapter of this scale is to add there.
bool is_same_function(const Lora& lora, double gamma, const at::Tensor& A, const at::Tensor& B,
                      double scale) {
  const auto product = [](const at::Tensor& b, const at::Tensor& a) {
    return b.detach().to(at::kDouble).mm(a.detach().to(at::kDouble));
  };
  const at::Tensor expected = scale * product(B, A);
  return (gamma * product(lora.B, lora.A) - expected).abs().max().item<double>() <
         1e-6 * expected.abs().max().item<double>();
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(peft_adapters, Folder)

BOOST_AUTO_TEST_CASE(every_expert_begins_as_the_adapter_and_the_rest_as_drawn) {
  const UserModel user_model{.experts = 3, .lora_rank = 5, .lora_alpha = 7.0};
  const Parameters found = begun(user_model, read());
  Parameters drawn(architecture, user_model, at::kCPU);
  drawn.initialise(1, 0);
  const std::vector<LayerParameters> layers = lora_layers(found), before = lora_layers(drawn);
  const auto begins_as = [&](const Lora& lora, const Lora& as_drawn, const std::string& module) {
    BOOST_TEST(is_same_function(lora, user_model.scale(), at(module, "A"), at(module, "B"), 6.0 / 3), module);
    BOOST_TEST(same_bits(lora.A.detach().narrow(0, 0, 3), at(module, "A")));
    // What is added to its rank can learn: B has no part in the function yet, A none in B's zeros.
    BOOST_TEST(same_bits(lora.A.detach().narrow(0, 3, 2), as_drawn.A.detach().narrow(0, 3, 2)));
    BOOST_TEST(lora.B.detach().narrow(1, 3, 2).abs().max().item<float>() == 0.0f);
  };
  begins_as(layers[0].attention[0], before[0].attention[0], attention);
  for (std::size_t expert = 0; expert < 3; ++expert) {
    begins_as(layers[1].experts[expert].up[0], before[1].experts[expert].up[0], up);
    begins_as(layers[1].experts[expert].down, before[1].experts[expert].down, down);
    BOOST_TEST(
        same_bits(layers[0].experts[expert].down.A.detach(), before[0].experts[expert].down.A.detach()));
    BOOST_TEST(layers[0].experts[expert].down.B.detach().abs().max().item<float>() == 0.0f);
  }
  for (std::size_t layer = 0; layer < 2; ++layer) {
    BOOST_TEST(same_bits(layers[layer].router.detach(), before[layer].router.detach()));
    BOOST_TEST(same_bits(layers[layer].attention[1].A.detach(), before[layer].attention[1].A.detach()));
  }
}

BOOST_AUTO_TEST_CASE(numbers_of_the_users_own_scale_keep_their_bits) {
  const UserModel user_model{.experts = 2, .lora_rank = 3, .lora_alpha = 7.0};
  // As exports have it: gamma r, rounded once.
  const Parameters found = begun(
      user_model,
      read(fmt::format(R"({{"peft_type": "LORA", "r": 3, "lora_alpha": {:.17g}}})", 7 * std::sqrt(3.0))));
  const Expert expert = lora_layers(found)[1].experts[1];
  BOOST_TEST(same_bits(expert.up[0].B.detach(), at(up, "B")));
  BOOST_TEST(same_bits(expert.down.A.detach(), at(down, "A")));
}

BOOST_AUTO_TEST_CASE(scales_are_as_peft_reckons_them) {
  const struct {
    const char* config;
    double of_attention, of_up, of_down;
  } rows[] = {
      {R"("lora_alpha": 6)", 2, 2, 2},
      {R"("lora_alpha": 6, "use_rslora": true)", 6 / std::sqrt(3), 6 / std::sqrt(3), 6 / std::sqrt(3)},
      {R"("alpha_pattern": {})", 8.0 / 3, 8.0 / 3, 8.0 / 3},
      {R"("lora_alpha": 6, "alpha_pattern": {"c_proj": 3})", 2, 2, 1},
      {R"("lora_alpha": 6, "alpha_pattern": {"proj": 3, "c_attn": 12, "h.1.mlp.c_fc": 1.5})", 4, 0.5, 2},
      {R"("lora_alpha": 6, "alpha_pattern": {"^transformer.h.1.mlp.c_fc": 9, "^h.1.mlp.c_proj": 9})", 2, 3,
       2},
      {R"("lora_alpha": 6, "alpha_pattern": {"h\\.[1-3]\\.mlp\\.c_(fc|proj)$": 3, "mlp.c_fc": 3})", 2, 1, 1},
      {R"("lora_alpha": 6, "alpha_pattern": {".*\\.0\\..*": 3})", 1, 2, 2},
  };
  const UserModel user_model{.experts = 1, .lora_rank = 3};
  for (const auto& row : rows) {
    const Parameters found =
        begun(user_model, read(fmt::format(R"({{"peft_type": "LORA", "r": 3, {}}})", row.config)));
    const std::vector<LayerParameters> layers = lora_layers(found);
    const auto check = [&](const Lora& lora, const std::string& module, double scale) {
      BOOST_TEST(is_same_function(lora, user_model.scale(), at(module, "A"), at(module, "B"), scale),
                 row.config << " of " << module);
    };
    check(layers[0].attention[0], attention, row.of_attention);
    check(layers[1].experts[0].up[0], up, row.of_up);
    check(layers[1].experts[0].down, down, row.of_down);
  }
}

BOOST_AUTO_TEST_CASE(ranks_differ_by_module) {
  add(up, 16, 64, 2);
  const Parameters found =
      begun({.experts = 1, .lora_rank = 3},
            read(R"({"peft_type": "LORA", "r": 3, "lora_alpha": 6, "rank_pattern": {"mlp.c_fc": 2}})"));
  BOOST_TEST(is_same_function(lora_layers(found)[1].experts[0].up[0], found.user_model().scale(), at(up, "A"),
                              at(up, "B"), 3.0));
  check_contains(refusal(), {"'base_model.model.transformer.h.1.mlp.c_fc.lora_A.weight'", "shape [2, 16]",
                             "expected [3, 16] from adapter_config.json"});
}

BOOST_AUTO_TEST_CASE(other_types_and_names_without_the_networks_own) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    test::Weights others;
    for (const auto& [name, tensor] : tensors)
      others[name.substr(std::string("transformer.").size())] = tensor.to(type);
    Folder other;
    other.tensors = others;
    const Parameters found = begun({.experts = 1, .lora_rank = 3}, other.read());
    BOOST_TEST(
        same_bits(lora_layers(found)[1].experts[0].up[0].A.detach(), at(up, "A").to(type).to(at::kFloat)));
  }
}

BOOST_AUTO_TEST_CASE(the_digest_is_of_both_files) {
  const std::string first = read().digest();
  BOOST_TEST(first ==
             sha256(sha256_of_file(folder / "adapter_config.json") + "  adapter_config.json\n" +
                    sha256_of_file(folder / "adapter_model.safetensors") + "  adapter_model.safetensors\n"));
  BOOST_TEST(read(std::string(plain) + "\n").digest() != first);
  at(down, "A")[0][0] += 1;
  BOOST_TEST(read().digest() != first);
}

// What is refused
// --------------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(what_is_no_plain_lora_is_refused_by_name) {
  const struct {
    const char *config, *found, *expected;
  } rows[] = {
      {R"({"r": 3})", "'peft_type' is missing", "\"LORA\""},
      {R"({"peft_type": "LOHA"})", "'peft_type' is \"LOHA\"", "\"LORA\""},
      {R"(["peft_type"])", "not a JSON object", ""},
      {R"({"peft_type": "LORA",)", "not valid JSON", "line 1"},
      {R"({"peft_type": "LORA", "use_dora": true})", "'use_dora' is true", "plain LoRA"},
      {R"({"peft_type": "LORA", "bias": "lora_only"})", "'bias' is \"lora_only\"", "\"none\""},
      {R"({"peft_type": "LORA", "modules_to_save": ["lm_head"]})", "'modules_to_save' is [\"lm_head\"]", ""},
      {R"({"peft_type": "LORA", "init_lora_weights": "pissa"})", "'init_lora_weights' is \"pissa\"",
       "gaussian"},
      {R"({"peft_type": "LORA", "r": 0})", "'r' is 0", "a whole number from 1"},
      {R"({"peft_type": "LORA", "r": 3, "lora_alpha": 0})", "'lora_alpha' is 0", "above 0"},
      {R"({"peft_type": "LORA", "r": 3, "rank_pattern": [3]})", "'rank_pattern' is [3]", "an object"},
      {R"({"peft_type": "LORA", "r": 3, "alpha_pattern": {"c_fc": "4"}})", "\"4\" for c_fc", "above 0"},
      {R"({"peft_type": "LORA", "r": 3, "alpha_pattern": {"a{1000}": 4}})", "a{1000}", "regular expressions"},
      {R"({"peft_type": "LORA", "r": 3, "alpha_pattern": {"(a": 4}})", "(a", "regular expressions"},
      {R"({"peft_type": "LORA", "r": 3, "alpha_pattern": {"c_fc": 4, "mlp.c_fc": 5}})",
       "4 by 'c_fc' and 5 by", "expected one number"},
  };
  for (const auto& row : rows)
    check_contains(refusal(row.config),
                   {(folder / "adapter_config.json").string() + ": ", row.found, row.expected});
}

BOOST_AUTO_TEST_CASE(evil_expressions_take_no_time) {
  for (const std::string text : {"(.*)*(.*)*(.*)*(.*)*(.*)*x", "((a+)+)+((t+)+)+$", "(((((.*.*)*)*)*)*)*y"})
    (void)read(fmt::format(R"({{"peft_type": "LORA", "r": 3, "alpha_pattern": {{"{}": 4}}}})", text));
}

BOOST_AUTO_TEST_CASE(what_is_left_over_is_refused) {
  const auto with = [&](const std::string& name) {
    test::Weights more = tensors;
    more[name] = at::zeros({2});
    std::swap(tensors, more);
    const std::string message = refusal();
    std::swap(tensors, more);
    check_contains(message, {"adapter_model.safetensors: a tensor 'base_model.model." + name + "'"});
    return message;
  };
  check_contains(with("transformer.h.0.attn.c_attn.lora_magnitude_vector"), {"DoRA"});
  check_contains(with("transformer.wte.lora_embedding_A"), {"embedding"});
  check_contains(with("lm_head.lora_A.weight"), {"head"});
  check_contains(with("transformer.h.0.attn.c_attn.lora_B.bias"), {"biases"});
  check_contains(with("transformer.h.7.attn.c_attn.lora_A.weight"), {"another base"});
  check_contains(with("transformer.h.0.attn.c_attn.lora_A.default.weight"), {"another base"});
  // Of one projection twice, with and without the network's own name.
  check_contains(with("h.0.attn.c_attn.lora_A.weight"), {"another base"});
  tensors.clear();
  check_contains(refusal(), {"adapter_model.safetensors"});
}

BOOST_AUTO_TEST_CASE(factors_must_be_whole) {
  at(up, "B") = at(up, "B").t().contiguous();
  check_contains(refusal(), {"mlp.c_fc.lora_B.weight'", "shape [3, 64]", "expected [64, 3]"});
  add(up, 16, 64);
  at(down, "A")[1][2] = std::numeric_limits<float>::quiet_NaN();
  check_contains(refusal(), {"mlp.c_proj.lora_A.weight'", "nan", "finite"});
  add(down, 64, 16);
  tensors.erase(std::string(attention) + ".lora_B.weight");
  check_contains(refusal(), {"adapter_model.safetensors", "c_attn.lora_B.weight"});
}

BOOST_AUTO_TEST_CASE(folders_that_hold_no_adapter) {
  const auto opened = [&](const std::filesystem::path& place) {
    return message_of<DataError>([&] { (void)PeftAdapter(place, architecture); });
  };
  check_contains(opened(folder / "none"), {"none: no such folder", "adapter_config.json"});
  check_contains(opened(folder), {"there is no adapter_config.json"});
  test::write_text(folder / "mixture.json", "{}");
  check_contains(opened(folder), {"several adapters", "expert-0"});
  (void)read();
  std::filesystem::rename(folder / "adapter_model.safetensors", folder / "adapter_model.bin");
  check_contains(opened(folder), {"there is no adapter_model.safetensors", "save_pretrained"});
  test::write_text(folder / "adapter_model.safetensors", "");
  check_contains(opened(folder), {"adapter_model.safetensors", "empty"});
}

BOOST_AUTO_TEST_CASE(ranks_and_scales_that_a_user_cannot_take) {
  const PeftAdapter adapter = read();
  BOOST_CHECK_NO_THROW(adapter.check_fits(architecture, {.lora_rank = 3}, "user 0", "[user.0]"));
  check_contains(message_of<ConfigError>(
                     [&] { adapter.check_fits(architecture, {.lora_rank = 2}, "user 1", "[user.1]"); }),
                 {"'transformer.h.0.attn.c_attn' has rank 3", "user 1 ([user.1] lora_rank) has rank 2",
                  "expected 3 or more"});
  check_contains(message_of<DataError>([&] {
                   adapter.check_fits(architecture, {.lora_rank = 4, .lora_alpha = 1e-40}, "user 1",
                                      "[user.1]");
                 }),
                 {"beyond float32"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
