// Two tokenizer.json files are the same where they make the same tokens of a text, however they are written.
#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <functional>

#include "comigs/base/error.hpp"
#include "comigs/data/vocabulary.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tokens.hpp"

namespace comigs::data {

namespace {

using Json = nlohmann::json;

struct TwoFiles : TemporaryFolder {
  Json bpe = Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 3, "content": "<end>", "special": true, "normalized": false}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})");
  Json unigram = Json::parse(R"({
    "normalizer": null, "pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always",
                                          "split": true},
    "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["_a", -2.5], ["b", -3.75]]}})");

  [[nodiscard]] std::string difference(const Json& one, const Json& other) const {
    test::write_text(folder / "one.json", one.dump());
    test::write_text(folder / "other.json", other.dump(2));
    return tokeniser_difference(folder / "one.json", folder / "other.json");
  }

  [[nodiscard]] std::string changed(const Json& original, const std::function<void(Json&)>& change) const {
    Json other = original;
    change(other);
    return difference(original, other);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(same_tokenisers, TwoFiles)

BOOST_AUTO_TEST_CASE(what_changes_no_token_does_not_count) {
  BOOST_TEST(difference(bpe, bpe) == "");
  BOOST_TEST(difference(unigram, unigram) == "");
  BOOST_TEST(changed(bpe, [](Json& t) {
               t["truncation"] = {{"max_length", 16}};
               t["padding"] = {{"pad_id", 0}};
               t["post_processor"] = {{"type", "TemplateProcessing"}};
               t["decoder"] = nullptr;
             }) == "");
  // As older versions of the library wrote it.
  BOOST_TEST(changed(bpe, [](Json& t) {
               t["model"] = {{"vocab", {{"ab", 2}, {"b", 1}, {"a", 0}, {"<end>", 3}}}, {"merges", {"a b"}}};
               t["pre_tokenizer"].erase("use_regex");
               t["pre_tokenizer"].erase("trim_offsets");
               t["added_tokens"][0]["normalized"] = true;
             }) == "");
  BOOST_TEST(changed(unigram, [](Json& t) {
               t["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", true}};
               t["model"]["vocab"][1][1] = -2.5 * (1 + 1e-15);  // a score read back from decimal
             }) == "");
}

BOOST_AUTO_TEST_CASE(what_changes_tokens_is_told) {
  using Change = std::function<void(Json&)>;
  const std::vector<std::pair<Change, std::string>> of_bpe = {
      {[](Json& t) { std::swap(t["model"]["vocab"]["a"], t["model"]["vocab"]["b"]); },
       "token 'a' is 0 in it, 1 there"},
      {[](Json& t) { t["model"]["vocab"].erase("ab"); }, "token 'ab' is 2 in it, absent there"},
      {[](Json& t) {
         t["added_tokens"].push_back({{"id", 4}, {"content", "<pad>"}});
       },
       "token '<pad>' is absent in it, 4 there"},
      {[](Json& t) { t["model"]["type"] = "WordPiece"; }, "its model is \"BPE\", \"WordPiece\" there"},
      {[](Json& t) { t["model"]["merges"] = Json::array(); }, "its merges are others"},
      {[](Json& t) { t["model"]["byte_fallback"] = true; }, "its model has other settings"},
      {[](Json& t) {
         t["normalizer"] = {{"type", "Lowercase"}};
       },
       "its normaliser is another"},
      {[](Json& t) { t["pre_tokenizer"]["add_prefix_space"] = true; }, "its pre-tokeniser is another"},
      {[](Json& t) { t["pre_tokenizer"]["use_regex"] = false; }, "its pre-tokeniser is another"}};
  for (const auto& [change, expected] : of_bpe) BOOST_TEST(changed(bpe, change) == expected);
  const std::vector<std::pair<Change, std::string>> of_unigram = {
      {[](Json& t) { t["model"]["vocab"][1][1] = -2.6; }, "its scores are others"},
      {[](Json& t) { std::swap(t["model"]["vocab"][1], t["model"]["vocab"][2]); },
       "token '_a' is 1 in it, 2 there"},
      {[](Json& t) {
         t["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}};
       },
       "its pre-tokeniser is another"}};
  for (const auto& [change, expected] : of_unigram) BOOST_TEST(changed(unigram, change) == expected);
}

BOOST_AUTO_TEST_CASE(what_is_no_tokeniser_is_named) {
  const auto refusal = [&](const Json& other) {
    return test::message_of<DataError>([&] { (void)difference(bpe, other); });
  };
  test::check_contains(refusal(Json::object()), {"other.json", "'model'"});
  Json merges = bpe;
  merges["model"]["merges"] = Json::parse(R"([["a", 1]])");
  test::check_contains(refusal(merges), {"other.json", "'model.merges[0]'"});
  merges["model"]["merges"] = 3;
  test::check_contains(refusal(merges), {"other.json", "'model.merges'"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::data
