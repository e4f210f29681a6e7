// Tokens as text; what the tokenizers library makes of the same files is in
// tests/python/commands/test_route.py.
#include "comigs/data/vocabulary.hpp"

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include "comigs/base/error.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tokens.hpp"

namespace comigs::data {

namespace {

const std::string unknown = "\uFFFD";

struct TokeniserFile : TemporaryFolder {
  nlohmann::json content = {
      {"model", {{"vocab", {{"a", 0}, {"Ġcat", 1}, {"Ã¼", 2}, {"Ã", 3}, {"Ċ", 4}, {"Ā", 5}, {"日", 7}}}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"added_tokens", {{{"id", 8}, {"content", "<|endoftext|>"}}}}};

  [[nodiscard]] Vocabulary read() const {
    test::write_text(folder / "tokenizer.json", content.dump());
    return Vocabulary(folder / "tokenizer.json");
  }
  void check_refused(const std::string& part) const {
    test::check_contains(test::message_of<DataError>([&] { (void)read(); }),
                         {(folder / "tokenizer.json").string(), part});
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(vocabularies, TokeniserFile)

BOOST_AUTO_TEST_CASE(tokens_may_share_a_character) {
  content["model"]["vocab"]["¼"] = 6;
  const std::vector<std::int64_t> tokens{0, 3, 6, 8, 3};
  BOOST_TEST(read().text(tokens) == "aü<|endoftext|>" + unknown);
}

BOOST_AUTO_TEST_CASE(byte_level_tokens_become_text) {
  const Vocabulary vocabulary = read();
  BOOST_TEST(vocabulary.text(0) == "a");
  BOOST_TEST(vocabulary.text(1) == " cat");
  BOOST_TEST(vocabulary.text(2) == "ü");
  BOOST_TEST(vocabulary.text(3) == unknown);  // half a character
  BOOST_TEST(vocabulary.text(4) == "\n");
  BOOST_TEST(vocabulary.text(5) == unknown);  // NUL, which HDF5's texts cannot hold
  BOOST_TEST(vocabulary.text(6) == unknown);  // no such token
  BOOST_TEST(vocabulary.text(7) == "日");     // none of the alphabet
  BOOST_TEST(vocabulary.text(8) == "<|endoftext|>");
  BOOST_TEST(vocabulary.text(-1) == unknown);
}

BOOST_AUTO_TEST_CASE(tokens_of_other_kinds_stand_as_they_are) {
  content["decoder"] = nullptr;
  const Vocabulary vocabulary = read();
  BOOST_TEST(vocabulary.text(1) == "Ġcat");
  BOOST_TEST(vocabulary.text(2) == "Ã¼");
}

BOOST_AUTO_TEST_CASE(a_list_of_tokens_and_scores_is_numbered_by_place) {
  content["decoder"] = {{"type", "Metaspace"}};
  content["model"]["vocab"] = nlohmann::json::parse(R"([["<pad>", 0.0], ["▁cat", -2.5], ["日", -3]])");
  const Vocabulary vocabulary = read();
  BOOST_TEST(vocabulary.text(0) == "<pad>");
  BOOST_TEST(vocabulary.text(1) == "▁cat");
  BOOST_TEST(vocabulary.text(2) == "日");
  BOOST_TEST(vocabulary.text(8) == "<|endoftext|>");
  BOOST_TEST(vocabulary.size() == 9);
  content["model"]["vocab"][1] = {"▁cat"};
  check_refused("'model.vocab[1]'");
  content["model"]["vocab"][1] = {-2.5, "▁cat"};
  check_refused("'model.vocab[1]'");
}

BOOST_AUTO_TEST_CASE(what_is_no_tokeniser_is_refused) {
  content["model"]["vocab"]["b"] = -1;
  check_refused("'model.vocab.b'");
  content["model"]["vocab"] = {"a", "b"};
  check_refused("'model.vocab[0]'");
  content["model"]["vocab"] = "a";
  check_refused("'model.vocab'");
  content.erase("model");
  check_refused("'model'");
  content = nlohmann::json::array();
  check_refused("'model'");
}

BOOST_AUTO_TEST_CASE(hostile_tokens_neither_break_a_message_nor_the_stack) {
  content["model"]["vocab"]["b\nfake line\x1b[2J"] = -1;
  check_refused("'model.vocab.b?fake line?[2J' is missing");
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  for (const char* place :
       {R"({"model": {"vocab": {"a": %}}})", R"({"model": {"vocab": {}}, "decoder": %})"}) {
    std::string text = place;
    text.replace(text.find('%'), 1, deep);
    test::write_text(folder / "tokenizer.json", text);
    test::check_contains(test::message_of<DataError>([&] { (void)Vocabulary(folder / "tokenizer.json"); }),
                         {"nested more than"});
  }
}

BOOST_AUTO_TEST_CASE(added_tokens_are_checked) {
  content["added_tokens"][0].erase("id");
  check_refused("'added_tokens[0].id'");
  content["added_tokens"] = 3;
  check_refused("'added_tokens'");
}

BOOST_AUTO_TEST_CASE(broken_text_is_replaced_as_unicode_recommends) {
  // Unicode 3.9, tables 3-8 to 3-11.
  BOOST_TEST(valid_text("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") ==
             unknown + unknown + unknown + unknown + unknown + unknown + unknown + unknown + "A");
  BOOST_TEST(valid_text("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") ==
             unknown + unknown + unknown + unknown + unknown + unknown + unknown + unknown + "A");
  BOOST_TEST(valid_text("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") ==
             unknown + unknown + unknown + unknown + unknown + "A" + unknown + unknown + "B");
  BOOST_TEST(valid_text("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") ==
             unknown + unknown + unknown + unknown + "A");
  BOOST_TEST(valid_text("aü日🙂") == "aü日🙂");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::data
