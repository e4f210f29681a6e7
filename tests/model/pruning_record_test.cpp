// comigs-pruning.json: read back as it was written, refused with one message where it cannot be or lies.
#include "comigs/model/pruning_record.hpp"

#include <ATen/ATen.h>

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/model/pruned_model.hpp"
#include "comigs/model/weights.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_base.hpp"

namespace comigs::model {

namespace {

using test::check_contains;
using Json = nlohmann::json;

struct PrunedFolder : TemporaryFolder {
  Architecture architecture = test::tiny_architecture();
  PruningRecord record{.method = "sparsegpt",
                       .sparsity = {.zeros = 2, .of = 4},
                       .calibration = Calibration{.sequences = 3,
                                                  .context_tokens = 12,
                                                  .seed = 5,
                                                  .digest = std::string(64, 'c'),
                                                  .precision = "bf16"},
                       .base_digest = std::string(64, 'b'),
                       .weights_digest = {},
                       .zeros = {}};

  PrunedFolder() {
    test::Weights weights = test::random_weights(architecture);
    const WeightSource dense = [&](const WeightSpec& spec) { return weights.at(spec.name); };
    for (auto& [name, matrix] : prune_by_magnitude(architecture, dense, record.sparsity)) {
      record.zeros[name] = count_zeros(matrix);
      weights[name] = matrix;
    }
    test::write_base(folder, architecture, weights);
    record.weights_digest = weights_digest(folder);
    write(Json::parse(as_json(record)));
  }
  void write(const Json& json) const { test::write_text(folder / pruning_file, json.dump()); }
  [[nodiscard]] std::string refusal(const std::function<void(Json&)>& change) const {
    Json json = Json::parse(as_json(record));
    change(json);
    write(json);
    const std::string message = test::message_of<DataError>(
        [&] { check_pruning(folder, architecture, read_pruning(folder, architecture).value()); });
    check_contains(message, {(folder / pruning_file).string() + ": "});
    BOOST_TEST(message.find('\n') == message.npos);
    return message;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(pruning_records, PrunedFolder)

BOOST_AUTO_TEST_CASE(a_record_comes_back) {
  for (const Sparsity& sparsity : {Sparsity{.zeros = 2, .of = 4}, Sparsity{.share = 0.9}})
    for (const bool calibrated : {true, false}) {
      record.sparsity = sparsity;
      if (!calibrated) record.calibration.reset();
      write(Json::parse(as_json(record)));
      const PruningRecord read = read_pruning(folder, architecture).value();
      BOOST_TEST(as_json(read) == as_json(record));
      BOOST_TEST(Json::parse(read.text) == Json::parse(as_json(record)));
      BOOST_TEST(read.share_of_zeros(architecture) == 0.5);
      BOOST_CHECK_NO_THROW(check_pruning(folder, architecture, read));
    }
  std::filesystem::remove(folder / pruning_file);
  BOOST_TEST(!read_pruning(folder, architecture));
}

// Records of earlier versions.
BOOST_AUTO_TEST_CASE(a_precision_that_is_not_said_is_float32) {
  Json json = Json::parse(as_json(record));
  json["calibration"].erase("precision");
  write(json);
  BOOST_TEST(read_pruning(folder, architecture)->calibration->precision == "float32");
}

BOOST_AUTO_TEST_CASE(what_differs_is_named) {
  BOOST_TEST(differences(record, record).empty());
  PruningRecord other = record;
  other.zeros.clear();
  other.weights_digest = std::string(64, '1');
  BOOST_TEST(differences(other, record).empty());  // they come out of it
  other.sparsity = {.share = 0.75};
  other.calibration->seed = 6;
  other.base_digest = std::string(64, 'd');
  const std::vector<std::string> expected = {
      "'base_digest' is \"" + std::string(64, 'd') + "\", expected \"" + std::string(64, 'b') + '"',
      "'seed' is 6, expected 5", "'of' is nothing, expected 4", "'share' is 0.75, expected nothing",
      "'zeros' is nothing, expected 2"};
  BOOST_TEST(differences(other, record) == expected, boost::test_tools::per_element());
  other = record;
  other.calibration.reset();
  BOOST_TEST(differences(other, record).size() == 1u);
  check_contains(differences(other, record).front(), {"'calibration' is nothing, expected {", "\"seed\":5"});
}

// Check 28.
BOOST_AUTO_TEST_CASE(what_cannot_be_is_refused) {
  const char* matrix = "h.0.attn.c_proj.weight";
  const std::vector<std::pair<std::function<void(Json&)>, std::vector<std::string>>> broken = {
      {[](Json& j) { j = Json::array(); }, {"not a JSON object"}},
      {[](Json& j) { j["format"] = "other"; }, {"'format' is \"other\"", "comigs-pruning"}},
      {[](Json& j) { j["format_version"] = 2; }, {"'format_version' is 2, expected 1"}},
      {[](Json& j) { j["method"] = "chance"; }, {"'method' is \"chance\"", "magnitude, wanda, sparsegpt"}},
      {[](Json& j) { j["method"] = 7; }, {"'method' is 7"}},
      {[](Json& j) { j["zeros"] = 4; }, {"'zeros' is 4, expected fewer than 'of', which is 4"}},
      {[](Json& j) { j["zeros"] = -1; }, {"'zeros' is -1"}},
      {[](Json& j) { j.erase("of"); }, {"'of' is missing"}},
      {[](Json& j) { j["share"] = 0.5; }, {"'zeros' is 2, expected nothing beside 'share'"}},
      {[](Json& j) { j["share"] = 1.0; }, {"'share' is 1.0, expected a number from 0 to below 1"}},
      {[](Json& j) { j["share"] = "half"; }, {"'share' is \"half\""}},
      {[](Json& j) { j["calibration"] = 3; }, {"'calibration' is 3"}},
      {[](Json& j) { j["calibration"]["seed"] = -3; }, {"'seed' is -3"}},
      {[](Json& j) { j["calibration"]["digest"] = "c"; }, {"'digest' is c", "64 hexadecimal digits"}},
      {[](Json& j) { j["calibration"]["precision"] = 16; }, {"'precision' is 16", "float32, bf16"}},
      {[](Json& j) { j["base_digest"] = 1; }, {"'base_digest' is 1, expected text"}},
      {[](Json& j) { j.erase("weights_digest"); }, {"'weights_digest' is missing"}},
      {[](Json& j) { j["zeros_by_matrix"] = Json::array(); }, {"'zeros_by_matrix' is []"}},
      {[=](Json& j) { j["zeros_by_matrix"].erase(matrix); }, {"without 'h.0.attn.c_proj.weight'"}},
      {[=](Json& j) { j["zeros_by_matrix"][matrix] = 1000; },
       {"1000 for h.0.attn.c_proj.weight", "up to 256"}},
      {[=](Json& j) { j["zeros_by_matrix"][matrix] = 1.5; }, {"1.5 for h.0.attn.c_proj.weight"}},
      {[](Json& j) { j["zeros_by_matrix"]["wte.weight"] = 0; }, {"of wte.weight"}},
  };
  for (const auto& [change, parts] : broken) check_contains(refusal(change), parts);
  test::write_text(folder / pruning_file, "{");
  check_contains(test::message_of<DataError>([&] { (void)read_pruning(folder, architecture); }),
                 {pruning_file, "line 1"});
}

// Check 28.
BOOST_AUTO_TEST_CASE(a_record_that_lies_is_refused) {
  check_contains(refusal([](Json& j) { j["zeros_by_matrix"]["h.1.mlp.c_fc.weight"] = 511; }),
                 {"has 511 for h.1.mlp.c_fc.weight, but the weights beside it have 512"});
  check_contains(refusal([](Json& j) { j["weights_digest"] = std::string(64, '0'); }),
                 {"'weights_digest' is 0000", "have the SHA-256 " + record.weights_digest});
  // The record of another model of the same shape.
  test::Weights others = test::random_weights(architecture);
  test::write_weights(folder, others);
  check_contains(refusal([](Json&) {}), {"'weights_digest' is " + record.weights_digest, "others"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
