// Texts for routing: from files of data_prep, and from a data set's test splits.
#include "comigs/data/probes.hpp"

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <functional>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tokens.hpp"

namespace comigs::data {

namespace {

using Json = nlohmann::json;

struct ProbesFile : TemporaryFolder {
  Json content = {{"format", "comigs-probes"},
                  {"format_version", 1},
                  {"vocabulary", 9},
                  {"probes", {{{"name", "out of domain"}, {"ids", {8, 0}}, {"text", {"Grü", "ße"}}}}}};

  [[nodiscard]] ProbeFile read() const {
    test::write_text(folder / "probes.json", content.dump());
    return read_probes(folder / "probes.json");
  }

  void check_refused(const std::string& part, const std::function<void(Json&)>& change) {
    const Json kept = content;
    change(content);
    test::check_contains(test::message_of<DataError>([&] { (void)read(); }),
                         {(folder / "probes.json").string(), part});
    content = kept;
  }
  void check_probe_refused(const std::string& entry, const std::string& name, const Json& value) {
    check_refused("'probes[0]." + entry + "'", [&](Json& file) { file["probes"][0][name] = value; });
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(probes, ProbesFile)

BOOST_AUTO_TEST_CASE(a_file_is_read) {
  const ProbeFile file = read();
  BOOST_TEST(file.vocabulary == 9);
  BOOST_REQUIRE(file.probes.size() == 1U);
  BOOST_TEST(file.probes[0].name == "out of domain");
  BOOST_TEST(file.probes[0].owner.empty());
  BOOST_TEST(file.probes[0].ids == (std::vector<std::int64_t>{8, 0}), boost::test_tools::per_element());
  BOOST_TEST(file.probes[0].texts == (std::vector<std::string>{"Grü", "ße"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(what_cannot_be_is_refused) {
  check_refused("'format'", [](Json& file) { file["format"] = "comigs-dataset"; });
  check_refused("'format'", [](Json& file) { file["format_version"] = 2; });
  check_refused("'vocabulary'", [](Json& file) { file.erase("vocabulary"); });
  check_refused("'probes'", [](Json& file) { file["probes"] = Json::array(); });
  check_refused("'probes[1].name'", [](Json& file) { file["probes"].push_back(file["probes"][0]); });
  for (const char* name : {"", ".", "..", "a/b", " a", "a ", "a\n"})
    check_probe_refused("name", "name", name);
  check_probe_refused("name", "name", std::string(65, 'a'));
  check_probe_refused("ids[1]", "ids", {0, 9});
  check_probe_refused("ids[0]", "ids", {-1, 0});
  check_probe_refused("ids[0]", "ids", {0.5, 0});
  check_probe_refused("ids", "ids", Json::array());
  check_probe_refused("ids", "ids", std::vector<int>(65537, 0));
  check_probe_refused("text", "text", {"one"});
  check_probe_refused("text[1]", "text", {"one", 2});
}

BOOST_AUTO_TEST_CASE(test_splits_begin_at_their_beginning) {
  test::write_text(folder / "tokenizer.json", R"({"model": {"vocab": {"a": 0, "b": 1}}})");
  Manifest manifest;
  manifest.vocabulary = 3;
  manifest.tokeniser = folder / "tokenizer.json";
  for (const std::string name : {"Sci/Tech", "World"}) {
    const auto tokens = name == "World" ? test::Tokens{1} : test::Tokens{0, 2, 1, 1};
    test::write_tokens(folder / name.substr(0, 3), tokens);
    UserShards user;
    user.name = name;
    user.test = {.file = folder / name.substr(0, 3), .tokens = static_cast<std::int64_t>(tokens.size())};
    manifest.users.push_back(user);
  }
  const std::vector<Probe> found = test_probes(manifest, 3);
  BOOST_REQUIRE(found.size() == 2U);
  BOOST_TEST(found[0].name == "user_0");
  BOOST_TEST(found[0].owner == "Sci/Tech");
  BOOST_TEST(found[0].ids == (std::vector<std::int64_t>{0, 2, 1}), boost::test_tools::per_element());
  BOOST_TEST(found[0].texts == (std::vector<std::string>{"a", "\uFFFD", "b"}),
             boost::test_tools::per_element());
  BOOST_TEST(found[1].name == "user_1");
  BOOST_TEST(found[1].ids.size() == 1U);
  BOOST_TEST(found[0].begins == std::vector<std::int64_t>{0}, boost::test_tools::per_element());
  // Another tokeniser would give the same tokens other texts.
  manifest.tokeniser_sha256 = sha256_of_file(manifest.tokeniser);
  BOOST_CHECK_NO_THROW((void)test_probes(manifest, 3));
  test::write_text(folder / "tokenizer.json", R"({"model": {"vocab": {"b": 0, "a": 1}}})");
  test::check_contains(test::message_of<DataError>([&] { (void)test_probes(manifest, 3); }),
                       {(folder / "tokenizer.json").string(), "SHA-256 is not the one in the manifest"});
}

BOOST_AUTO_TEST_CASE(examples_are_the_parts_of_a_split) {
  test::write_text(folder / "tokenizer.json", R"({"model": {"vocab": {"a": 0}}})");
  const test::Tokens tokens(9, 0);
  Manifest manifest;
  manifest.vocabulary = 1;
  manifest.tokeniser = folder / "tokenizer.json";
  manifest.users.resize(1);
  manifest.users[0].test =
      test::describe_examples(folder / "test", tokens, test::examples_of({{2, 1}, {1, 1}, {1, 3}}));
  const auto check = [&](std::int64_t first, std::size_t size, const std::vector<std::int64_t>& begins) {
    const std::vector<Probe> found = test_probes(manifest, first);
    BOOST_TEST(found[0].ids.size() == size);
    BOOST_TEST(found[0].begins == begins, boost::test_tools::per_element());
  };
  check(9, 9U, {0, 3, 5});
  check(8, 5U, {0, 3});
  check(1, 3U, {0});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::data
