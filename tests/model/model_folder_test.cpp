// Folders as models are published: heads of their own, shards, other precisions; what would be passed over
// is refused by name.
#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <limits>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/model/base_model.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::model {

namespace {

namespace fs = std::filesystem;
using test::check_contains;
using Json = nlohmann::json;

struct Published : TemporaryFolder {
  Architecture architecture = test::tiny_architecture();
  test::Weights weights = test::random_weights(architecture);
  at::Tensor other_head = test::normal({37, 16}, 77);

  void write() const { test::write_base(folder, architecture, weights); }
  void configure(const char* name, const Json& value) const {
    Json config = Json::parse(config_json(architecture));
    config[name] = value;
    test::write_text(folder / "config.json", config.dump());
  }
  [[nodiscard]] std::unique_ptr<BaseModel> load(at::ScalarType dtype = at::kFloat) const {
    return load_base_model(folder, dtype, at::kCPU);
  }
  [[nodiscard]] std::string refusal() const {
    return test::message_of<DataError>([&] { (void)read_architecture(folder); });
  }
  [[nodiscard]] static at::Tensor logits(const BaseModel& base) {
    Hooks bare;
    const at::Tensor tokens = at::arange(24, at::kLong).mul(5).remainder(37).view({2, 12});
    const at::Tensor hidden = forward(base, tokens, bare);
    return hidden.mm(base.head().to(hidden.scalar_type()).t());
  }
};

struct Sharded : Published {
  Json index = {{"metadata", Json::object()}, {"weight_map", Json::object()}};

  // Every other tensor in the second shard, as `sha256sum` orders them.
  void write() {
    test::write_text(folder / "config.json", config_json(architecture));
    std::map<std::string, test::Weights> shards;
    std::size_t number = 0;
    for (const auto& [name, tensor] : weights) {
      const std::string shard = fmt::format("model-0000{}-of-00002.safetensors", 1 + number++ % 2);
      shards[shard][name] = tensor;
      index["weight_map"]["transformer." + name] = shard;
    }
    for (const auto& [file, part] : shards) test::write_weights_file(folder / file, part);
    write_index();
  }
  void write_index() const { test::write_text(folder / "model.safetensors.index.json", index.dump()); }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(heads, Published)

BOOST_AUTO_TEST_CASE(head_of_its_own_is_used) {
  const at::Tensor tied = logits(*test::tiny_base(architecture));
  weights["lm_head.weight"] = other_head;
  write();
  for (const Json& setting : {Json(true), Json(false)}) {
    configure("tie_word_embeddings", setting);
    const auto base = load();
    BOOST_TEST(!base->architecture().tied_head);
    BOOST_TEST(test::same_bits(base->head(), other_head));
    BOOST_TEST(!test::close(logits(*base), tied, 1e-1));
  }
  const auto specs = weight_specs(read_architecture(folder));
  BOOST_TEST(specs.back().name == "lm_head.weight");
  BOOST_TEST(can_be_mapped(folder, specs, at::kFloat));
}

BOOST_AUTO_TEST_CASE(head_that_is_the_embedding_is_one_matrix) {
  weights["lm_head.weight"] = weights["wte.weight"].clone();
  write();
  const Architecture read = read_architecture(folder);
  BOOST_TEST(read.tied_head);
  BOOST_TEST(weight_specs(read).size() == weights.size() - 1);
}

BOOST_AUTO_TEST_CASE(embedding_may_be_stored_as_the_head) {
  const at::Tensor expected = logits(*test::tiny_base(architecture));
  weights["lm_head.weight"] = weights["wte.weight"];
  weights.erase("wte.weight");
  write();
  BOOST_TEST(test::same_bits(logits(*load()), expected));
}

BOOST_AUTO_TEST_CASE(head_that_is_missing_or_does_not_fit) {
  write();
  configure("tie_word_embeddings", false);
  check_contains(refusal(), {"model.safetensors", "'lm_head.weight'", "'tie_word_embeddings'", "false"});
  weights["lm_head.weight"] = test::normal({38, 16}, 1);
  write();
  check_contains(refusal(), {"'lm_head.weight' has shape [38, 16], expected [37, 16]"});
}

BOOST_AUTO_TEST_CASE(head_of_its_own_is_written) {
  architecture.tied_head = false;
  weights["lm_head.weight"] = other_head;
  write_base_model(folder, architecture, [&](const WeightSpec& spec) { return weights.at(spec.name); });
  BOOST_TEST(io::SafetensorsFile(folder / "model.safetensors").find("lm_head.weight") != nullptr);
  BOOST_TEST(test::same_bits(load()->head(), other_head));
}

BOOST_AUTO_TEST_CASE(tensors_that_would_be_passed_over) {
  for (const char* name :
       {"h.0.attn.c_attn.lora_A.weight", "h.1.mlp.c_fc.SCB", "h.2.ln_1.weight", "score.weight", "wte2.weight",
        "h.0.crossattention.c_attn.weight", "multiple_choice_head.summary.weight"}) {
    weights[name] = test::normal({4}, 1);
    write();
    check_contains(refusal(),
                   {"model.safetensors: a tensor", "does not have", std::string("'transformer.") + name});
    weights.erase(name);
  }
  for (const char* name : {"h.0.attn.bias", "h.1.attn.masked_bias"}) weights[name] = test::normal({1, 1}, 1);
  write();
  BOOST_CHECK_NO_THROW((void)read_architecture(folder));
  for (int layer = 2; layer < 7; ++layer) weights[fmt::format("h.{}.ln_1.weight", layer)] = at::ones({16});
  write();
  check_contains(refusal(), {"5 tensors", "h.2.ln_1.weight", ", ..."});
}

BOOST_AUTO_TEST_CASE(tensor_with_and_without_prefix) {
  std::vector<at::Tensor> kept;
  std::vector<io::NamedTensor> tensors;
  for (const char* name : {"transformer.wte.weight", "wte.weight"}) {
    kept.push_back(test::normal({37, 16}, 1));
    tensors.push_back(
        {name,
         {.dtype = io::Dtype::float32,
          .shape = {37, 16},
          .bytes = {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}}});
  }
  write();
  io::write_safetensors(folder / "model.safetensors", tensors);
  check_contains(refusal(), {"'wte.weight' is there twice", "'transformer.wte.weight'"});
}

BOOST_AUTO_TEST_CASE(half_precision_is_converted) {
  for (auto& [name, tensor] : weights) tensor = tensor.to(at::kHalf);
  write();
  const auto specs = weight_specs(architecture);
  BOOST_TEST(!can_be_mapped(folder, specs, at::kFloat));
  BOOST_TEST(!can_be_mapped(folder, specs, at::kBFloat16));
  const auto wide = open_weights(folder, at::kFloat, at::kCPU),
             narrow = open_weights(folder, at::kBFloat16, at::kCPU);
  for (const WeightSpec& spec : specs) {
    BOOST_TEST(test::same_bits(wide(spec), weights.at(spec.name).to(at::kFloat)));
    BOOST_TEST(test::same_bits(narrow(spec), weights.at(spec.name).to(at::kBFloat16)));
  }
}

BOOST_AUTO_TEST_CASE(numbers_that_are_not_finite) {
  const auto specs = weight_specs(architecture);
  write();
  BOOST_CHECK_NO_THROW(check_finite(folder, specs));
  for (const float number : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity()})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor sound = weights["h.1.mlp.c_fc.weight"];
      at::Tensor broken = sound.clone();
      broken[3][5].fill_(number);
      weights["h.1.mlp.c_fc.weight"] = broken.to(type);
      write();
      check_contains(test::message_of<DataError>([&] { check_finite(folder, specs); }),
                     {"model.safetensors: 'transformer.h.1.mlp.c_fc.weight'", fmt::format("{}", number)});
      weights["h.1.mlp.c_fc.weight"] = sound;
    }
}

BOOST_AUTO_TEST_CASE(other_formats_are_told_with_what_to_do) {
  test::write_text(folder / "config.json", config_json(architecture));
  const std::vector<std::pair<const char*, const char*>> found = {
      {"pytorch_model.bin", "save_pretrained"},
      {"pytorch_model-00001-of-00002.bin", "save_pretrained"},
      {"tf_model.h5", "save_pretrained"},
      {"model-00001-of-00002.safetensors", "no index"},
      {"adapter_model.safetensors", "merge_and_unload"},
      {"model.safetensors.incomplete", "download"}};
  for (const auto& [file, advice] : found) {
    test::write_text(folder / file, "x");
    check_contains(refusal(), {folder.string() + ": there is no model.safetensors, but " + file, advice});
    fs::remove(folder / file);
  }
  check_contains(refusal(), {"neither model.safetensors nor model.safetensors.index.json"});
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(shards, Sharded)

BOOST_AUTO_TEST_CASE(shards_are_one_model) {
  write();
  const auto specs = weight_specs(read_architecture(folder));
  BOOST_TEST(can_be_mapped(folder, specs, at::kFloat));
  const WeightSource source = open_weights(folder, at::kFloat, at::kCPU);
  for (const WeightSpec& spec : specs) {
    BOOST_TEST(test::same_bits(source(spec), weights.at(spec.name)));
    BOOST_TEST(source(spec).const_data_ptr() == source(spec).const_data_ptr());  // no copy
  }
  BOOST_TEST(test::same_bits(logits(*load()), logits(*test::tiny_base(architecture))));
}

BOOST_AUTO_TEST_CASE(one_file_goes_before_shards) {
  write();
  weights["wte.weight"] = other_head;
  test::write_weights(folder, weights);
  BOOST_TEST(test::same_bits(load()->head(), other_head));
}

BOOST_AUTO_TEST_CASE(digest_is_that_of_sha256sum) {
  write();
  const auto digest_of = [&](const char* file) { return sha256(io::MappedFile(folder / file).bytes()); };
  const std::string expected =
      digest_of("model-00001-of-00002.safetensors") + "  model-00001-of-00002.safetensors\n" +
      digest_of("model-00002-of-00002.safetensors") + "  model-00002-of-00002.safetensors\n";
  BOOST_TEST(weights_digest(folder) == sha256(expected));
  BOOST_TEST(weight_files(folder).size() == 2u);
  weights["ln_f.bias"] = test::normal({16}, 5);
  const std::string before = weights_digest(folder);
  write();
  BOOST_TEST(weights_digest(folder) != before);
}

BOOST_AUTO_TEST_CASE(shards_may_be_links) {
  write();
  TemporaryFolder cache;
  for (const char* name : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
    fs::rename(folder / name, cache.folder / name);
    fs::create_symlink(cache.folder / name, folder / name);
  }
  BOOST_CHECK_NO_THROW((void)load());
  fs::remove(cache.folder / "model-00002-of-00002.safetensors");
  check_contains(refusal(), {"model-00002-of-00002.safetensors", "No such file"});
}

BOOST_AUTO_TEST_CASE(shards_that_do_not_go_together) {
  write();
  fs::rename(folder / "model-00002-of-00002.safetensors", folder / "elsewhere");
  check_contains(refusal(),
                 {"model.safetensors.index.json", "model-00002-of-00002.safetensors", "not there"});
  fs::rename(folder / "elsewhere", folder / "model-00002-of-00002.safetensors");
  // A tensor in another shard than the index says.
  index["weight_map"]["transformer.wte.weight"] = "model-00001-of-00002.safetensors";
  index["weight_map"]["transformer.wpe.weight"] = "model-00001-of-00002.safetensors";
  write_index();
  check_contains(refusal(), {"model-00001-of-00002.safetensors: 'transformer.w", "is missing", "promises"});
  // In two.
  write();
  test::Weights all = weights;
  test::write_weights_file(folder / "model-00002-of-00002.safetensors", all);
  check_contains(refusal(), {"model-00002-of-00002.safetensors", "is there twice", "model-00001-of-00002"});
}

BOOST_AUTO_TEST_CASE(index_that_is_none) {
  write();
  for (const Json& place : {Json("../secret"), Json("/etc/passwd"), Json("a/b.safetensors"), Json(".."),
                            Json(""), Json(3), Json(nullptr), Json("a\nb")}) {
    index["weight_map"]["transformer.wte.weight"] = place;
    write_index();
    check_contains(refusal(), {"model.safetensors.index.json", "'transformer.wte.weight'", "beside it"});
  }
  for (const char* text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})"}) {
    test::write_text(folder / "model.safetensors.index.json", text);
    check_contains(refusal(), {"model.safetensors.index.json", "'weight_map'"});
  }
  test::write_text(folder / "model.safetensors.index.json", "{\n");
  check_contains(refusal(), {"model.safetensors.index.json: not valid JSON: line 2"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
