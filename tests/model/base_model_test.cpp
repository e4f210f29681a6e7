// Hugging Face folders: read back as they were written, refused with a clear message where something is
// wrong.
#include "comigs/model/base_model.hpp"
#include "comigs/model/precision.hpp"

#include <ATen/ATen.h>
#include <malloc.h>

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "comigs/base/error.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::model {

namespace {

using test::check_contains;
using Json = nlohmann::json;

struct BaseFolder : TemporaryFolder {
  Architecture architecture = test::tiny_architecture();
  test::Weights weights = test::random_weights(architecture);
  at::Tensor tokens = at::arange(24, at::kLong).mul(5).remainder(37).view({2, 12});

  void write() const { test::write_base(folder, architecture, weights); }

  [[nodiscard]] at::Tensor hidden(const BaseModel& base) const {
    Hooks bare;
    return forward(base, tokens, bare);
  }

  [[nodiscard]] std::string load_refusal() const {
    return test::message_of<DataError>([&] { (void)load_base_model(folder, at::kFloat, at::kCPU); });
  }

  /// What a changed config.json is refused with.
  [[nodiscard]] std::string config_refusal(const std::function<void(Json&)>& change) const {
    Json config = Json::parse(config_json(architecture));
    change(config);
    test::write_text(folder / "config.json", config.dump());
    const std::string message = test::message_of<DataError>([&] { (void)read_architecture(folder); });
    check_contains(message, {(folder / "config.json").string()});
    return message;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(base_models, BaseFolder)

BOOST_AUTO_TEST_CASE(architecture_comes_back) {
  write();
  const Architecture read = read_architecture(folder);
  BOOST_TEST(read.family == "gpt2");
  BOOST_TEST(read.layers == 2);
  BOOST_TEST(read.width == 16);
  BOOST_TEST(read.heads == 2);
  BOOST_TEST(read.inner == 64);
  BOOST_TEST(read.vocabulary == 37);
  BOOST_TEST(read.positions == 24);
  BOOST_TEST(read.norm_epsilon == 1e-5);
  BOOST_TEST(read.attention.size() == 2u);
  BOOST_TEST(read.attention[0].out == 48);
}

BOOST_AUTO_TEST_CASE(list_of_weights_is_gpt_2_s) {
  // GPT-2 "small" has 124,439,808 parameters in 148 tensors.
  const std::vector<WeightSpec> specs = weight_specs(gpt2_architecture(12, 768, 12, 50257, 1024));
  std::int64_t count = 0;
  for (const WeightSpec& spec : specs) count += spec.count();
  BOOST_TEST(count == 124439808);
  BOOST_TEST(specs.size() == 148u);
}

BOOST_AUTO_TEST_CASE(weights_come_back_with_and_without_prefix) {
  write();
  const at::Tensor expected = hidden(*test::tiny_base(architecture));
  BOOST_TEST(test::same_bits(hidden(*load_base_model(folder, at::kFloat, at::kCPU)), expected));
  test::write_weights(folder, weights, "");
  BOOST_TEST(test::same_bits(hidden(*load_base_model(folder, at::kFloat, at::kCPU)), expected));
}

BOOST_AUTO_TEST_CASE(model_outlives_its_file) {
  write();
  const std::unique_ptr<BaseModel> base = load_base_model(folder, at::kFloat, at::kCPU);
  std::filesystem::remove_all(folder);
  BOOST_TEST(test::same_bits(hidden(*base), hidden(*test::tiny_base(architecture))));
}

BOOST_AUTO_TEST_CASE(weights_are_views_of_the_file_or_converted) {
  write();
  const WeightSource same = open_weights(folder, at::kFloat, at::kCPU);
  const WeightSpec head{.name = "wte.weight", .shape = {37, 16}, .prefix = "transformer."};
  BOOST_TEST((same(head).data_ptr<float>() == same(head).data_ptr<float>()));
  BOOST_TEST(test::same_bits(same(head), weights.at("wte.weight")));
  const WeightSource narrow = open_weights(folder, at::kBFloat16, at::kCPU);
  BOOST_TEST(test::same_bits(narrow(head), weights.at("wte.weight").to(at::kBFloat16)));
}

BOOST_AUTO_TEST_CASE(a_converted_copy_is_the_conversion) {
  write();
  const std::vector<WeightSpec> specs = weight_specs(architecture);
  BOOST_TEST(can_be_mapped(folder, specs, at::kFloat));
  BOOST_TEST(!can_be_mapped(folder, specs, at::kBFloat16));
  write_weights(folder / "narrow", specs, open_weights(folder, at::kBFloat16, at::kCPU));
  BOOST_TEST(can_be_mapped(folder / "narrow", specs, at::kBFloat16));
  const at::Tensor expected = hidden(*load_base_model(folder, at::kBFloat16, at::kCPU));
  const auto copy = make_base_model(architecture, open_weights(folder / "narrow", at::kBFloat16, at::kCPU));
  BOOST_TEST(test::same_bits(hidden(*copy), expected));
}

// Older writers did not pad the header: the data may begin at any byte.
BOOST_AUTO_TEST_CASE(tensors_off_their_alignment_are_copied) {
  write();
  const at::Tensor expected = hidden(*load_base_model(folder, at::kFloat, at::kCPU));
  const std::filesystem::path file = folder / "model.safetensors";
  std::string bytes;
  {
    std::ifstream stream(file, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(stream), {});
  }
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  bytes.insert(8 + header, "  ");
  header += 2;
  std::memcpy(bytes.data(), &header, sizeof header);
  test::write_text(file, bytes);
  BOOST_TEST(!can_be_mapped(folder, weight_specs(architecture), at::kFloat));
  BOOST_TEST(test::same_bits(hidden(*load_base_model(folder, at::kFloat, at::kCPU)), expected));
}

BOOST_AUTO_TEST_CASE(bf16_file) {
  for (auto& [name, tensor] : weights) tensor = tensor.to(at::kBFloat16);
  write();
  const auto narrow = load_base_model(folder, at::kBFloat16, at::kCPU);
  const at::Tensor wide = hidden(*load_base_model(folder, at::kFloat, at::kCPU));
  BOOST_TEST((narrow->head().scalar_type() == at::kBFloat16));
  BOOST_TEST((hidden(*narrow).scalar_type() == activation_type(at::kBFloat16, at::kCPU)));
  BOOST_TEST((wide.scalar_type() == at::kFloat));
  BOOST_TEST(test::close(hidden(*narrow), wide, 5e-2));
}

// Bytes that somebody holds.
std::size_t allocated() {
  const struct mallinfo2 heap = mallinfo2();
  return heap.uordblks + heap.hblkhd;
}

BOOST_AUTO_TEST_CASE(a_product_beside_narrow_weights_keeps_no_wide_copy_of_them) {
  constexpr std::int64_t in = 1024, out = 2048;
  for (const bool has_bias : {false, true}) {
    const Weight weight{.matrix = test::normal({in, out}, 1, 0.1).to(at::kBFloat16),
                        .bias = has_bias ? test::normal({out}, 2) : at::Tensor()};
    const at::Tensor x = test::normal({3, in}, 3).set_requires_grad(true);
    const std::size_t before = allocated();
    const at::Tensor y = project(x, weight);
    BOOST_TEST(allocated() < before + static_cast<std::size_t>(in * out));
    const at::Tensor wide = weight.matrix.to(at::kFloat), plain = x.mm(wide);
    BOOST_TEST(test::close(y.detach(), (has_bias ? plain + weight.bias : plain).detach(), 1e-5));
    y.square().sum().backward();
    BOOST_TEST(test::close(x.grad(), (2.0 * y.detach()).mm(wide.t()), 1e-5));
  }
}

BOOST_AUTO_TEST_CASE(missing_files) {
  check_contains(load_refusal(), {"config.json", "Hugging Face folder"});
  test::write_text(folder / "config.json", config_json(architecture));
  check_contains(load_refusal(), {"model.safetensors"});
}

BOOST_AUTO_TEST_CASE(config_that_is_not_one) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"", "it is empty"},
      {"{", "not valid JSON: line 1, byte 2"},
      {R"({"n_layer": 2, "n_layer": 3})", "'n_layer' twice"},
      {"[1]", "not a JSON object"},
      {"7", "not a JSON object"},
      {"{\"n_layer\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}", "nested more than"}};
  for (const auto& [text, reason] : refused) {
    test::write_text(folder / "config.json", text);
    check_contains(test::message_of<DataError>([&] { (void)read_architecture(folder); }),
                   {"config.json", reason});
  }
}

BOOST_AUTO_TEST_CASE(unknown_family) {
  check_contains(config_refusal([](Json& c) { c["model_type"] = "mamba"; }),
                 {"'mamba' is not supported", "known: 'gpt2', 'llama'"});
  check_contains(config_refusal([](Json& c) { c.erase("model_type"); }), {"'model_type' is missing"});
  check_contains(config_refusal([](Json& c) { c["model_type"] = 2; }), {"'model_type'"});
  const std::string message =
      config_refusal([](Json& c) { c["model_type"] = "a\n\x1b[2J" + std::string(100'000, 'x'); });
  BOOST_TEST(message.size() < 1000U);
  BOOST_TEST(message.find('\n') == message.npos);
}

BOOST_AUTO_TEST_CASE(sizes_that_cannot_be) {
  for (const Json& epsilon : {Json("1e-5"), Json(-1.0), Json(2.0), Json(nullptr)})
    check_contains(config_refusal([&](Json& c) { c["layer_norm_epsilon"] = epsilon; }),
                   {"'layer_norm_epsilon'", "above 0"});
  check_contains(config_refusal([](Json& c) { c["n_head"] = 3; }),
                 {"'n_head' is 3", "divisor of n_embd = 16"});
  for (const char* name : {"n_layer", "n_embd", "n_head", "vocab_size", "n_positions"}) {
    check_contains(config_refusal([&](Json& c) { c.erase(name); }), {name, "missing"});
    for (const Json& value : {Json(0), Json(-4), Json(2.5), Json("12"), Json(1ull << 63)})
      check_contains(config_refusal([&](Json& c) { c[name] = value; }),
                     {name, value.dump(), "a whole number from 1"});
  }
}

BOOST_AUTO_TEST_CASE(settings_that_compute_something_else) {
  for (const char* other : {"relu", "gelu", "gelu_10", "quick_gelu", "silu"})
    check_contains(config_refusal([&](Json& c) { c["activation_function"] = other; }),
                   {"'activation_function'", other, "gelu_new"});
  check_contains(config_refusal([](Json& c) { c["n_inner"] = 100; }), {"'n_inner'", "100", "64"});
  check_contains(config_refusal([](Json& c) { c["scale_attn_weights"] = false; }), {"'scale_attn_weights'"});
  check_contains(config_refusal([](Json& c) { c["scale_attn_by_inverse_layer_idx"] = true; }),
                 {"'scale_attn_by_inverse_layer_idx'"});
  check_contains(config_refusal([](Json& c) { c["add_cross_attention"] = true; }), {"'add_cross_attention'"});
  check_contains(config_refusal([](Json& c) { c["is_encoder_decoder"] = true; }), {"'is_encoder_decoder'"});
  check_contains(config_refusal([](Json& c) { c["pruned_heads"] = {{"0", {1}}}; }), {"'pruned_heads'"});
  check_contains(config_refusal([](Json& c) {
                   c["quantization_config"] = {{"load_in_8bit", true}};
                 }),
                 {"'quantization_config'", "load_in_8bit"});
  check_contains(config_refusal([](Json& c) {
                   c["auto_map"] = {{"AutoModelForCausalLM", "own.py"}};
                 }),
                 {"'auto_map'", "own.py"});
  check_contains(config_refusal([](Json& c) { c["architectures"] = {"GPT2ForSequenceClassification"}; }),
                 {"'architectures'", "GPT2ForSequenceClassification", "GPT2LMHeadModel"});
  check_contains(config_refusal([](Json& c) { c["tie_word_embeddings"] = "no"; }),
                 {"'tie_word_embeddings'", "true or false"});
  check_contains(config_refusal([](Json& c) { c["hidden_size"] = 32; }), {"'hidden_size' is 32", "16"});
}

BOOST_AUTO_TEST_CASE(settings_that_compute_the_same) {
  write();
  const auto read = [&](const std::function<void(Json&)>& change) {
    Json config = Json::parse(config_json(architecture));
    change(config);
    test::write_text(folder / "config.json", config.dump());
    return read_architecture(folder);
  };
  for (const char* alias : {"gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"})
    BOOST_CHECK_NO_THROW((void)read([&](Json& c) { c["activation_function"] = alias; }));
  BOOST_CHECK_NO_THROW((void)read([](Json& c) { c["reorder_and_upcast_attn"] = true; }));
  BOOST_CHECK_NO_THROW((void)read([](Json& c) { c["architectures"] = {"GPT2Model"}; }));
  BOOST_CHECK_NO_THROW((void)read([](Json& c) { c["quantization_config"] = nullptr; }));
  const Architecture renamed = read([](Json& c) {
    c["num_hidden_layers"] = c["n_layer"];
    c.erase("n_layer");
  });
  BOOST_TEST(renamed.layers == 2);
}

BOOST_AUTO_TEST_CASE(missing_tensor) {
  weights.erase("h.1.mlp.c_fc.bias");
  write();
  check_contains(load_refusal(), {"model.safetensors", "'h.1.mlp.c_fc.bias' is missing"});
}

BOOST_AUTO_TEST_CASE(tensor_of_another_shape) {
  weights["h.0.attn.c_attn.weight"] = test::normal({48, 16}, 1);
  write();
  check_contains(load_refusal(),
                 {"'h.0.attn.c_attn.weight'", "[48, 16]", "expected [16, 48] from config.json"});
}

BOOST_AUTO_TEST_CASE(tensor_of_another_type) {
  write();
  const std::vector<std::int32_t> numbers(37 * 16);
  const io::NamedTensor wrong{
      "wte.weight",
      {.dtype = io::Dtype::int32, .shape = {37, 16}, .bytes = std::as_bytes(std::span(numbers))}};
  io::write_safetensors(folder / "model.safetensors", std::span(&wrong, 1));
  check_contains(load_refusal(), {"'wte.weight'", "I32", "expected F32, BF16 or F16"});
}

BOOST_AUTO_TEST_CASE(truncated_file) {
  write();
  const auto size = std::filesystem::file_size(folder / "model.safetensors");
  for (const auto left : {size - 4, size / 2, std::uintmax_t{20}, std::uintmax_t{3}, std::uintmax_t{0}}) {
    std::filesystem::resize_file(folder / "model.safetensors", left);
    check_contains(load_refusal(), {"model.safetensors"});
  }
}

BOOST_AUTO_TEST_CASE(context_longer_than_the_position_table) {
  const std::unique_ptr<BaseModel> base = test::tiny_base(architecture);
  const std::string message = test::message_of<DataError>([&] {
    Hooks bare;
    (void)forward(*base, at::zeros({1, 25}, at::kLong), bare);
  });
  check_contains(message, {"25 tokens", "24 positions"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
