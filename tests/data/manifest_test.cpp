// A data-set folder as data_prep writes it, and every way in which one can be wrong.
#include "comigs/data/manifest.hpp"

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

using test::check_contains;
using Json = nlohmann::json;

Json split(const std::string& file, int tokens) {
  return {{"file", file}, {"tokens", tokens}, {"documents", 1}, {"sha256", "ab"}};
}

Json user(const std::string& name, const std::string& folder) {
  return {{"name", name},
          {"splits",
           {{"train", split(folder + "/train.bin", 30)},
            {"validation", split(folder + "/validation.bin", 20)},
            {"test", split(folder + "/test.bin", 10)}}}};
}

struct DataSetFolder : TemporaryFolder {
  Json manifest = {
      {"format", "comigs-dataset"},
      {"format_version", 1},
      {"name", "sample"},
      {"seed", 0},
      {"tokeniser",
       {{"kind", "byte-level-bpe"}, {"file", "tokenizer.json"}, {"vocabulary", 50}, {"end_of_text", 0}}},
      {"dtype", "uint16"},
      {"users", {user("German", "german"), user("Dutch", "dutch")}},
      {"base",
       {{"splits",
         {{"train", split("base/train.bin", 40)}, {"validation", split("base/validation.bin", 15)}}}}},
      {"sources", Json::array()}};

  [[nodiscard]] Manifest read() const {
    test::write_text(folder / "manifest.json", manifest.dump(1));
    return read_manifest(folder);
  }

  /// What the changed manifest is refused with.
  [[nodiscard]] std::string refusal(const std::function<void(Json&)>& change) {
    const Json kept = manifest;
    change(manifest);
    const std::string message = test::message_of<DataError>([&] { (void)read(); });
    manifest = kept;
    check_contains(message, {(folder / "manifest.json").string()});
    return message;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(manifests, DataSetFolder)

BOOST_AUTO_TEST_CASE(a_whole_manifest) {
  const Manifest read_back = read();
  BOOST_TEST(read_back.name == "sample");
  BOOST_TEST(read_back.vocabulary == 50);
  BOOST_TEST(read_back.tokeniser == folder / "tokenizer.json");
  BOOST_TEST_REQUIRE(read_back.users.size() == 2u);
  BOOST_TEST(read_back.users[1].name == "Dutch");
  BOOST_TEST(read_back.users[1].validation.file == folder / "dutch/validation.bin");
  BOOST_TEST(read_back.users[1].train.tokens == 30);
  BOOST_TEST((read_back.users[1].test.type == TokenType::uint16));
  BOOST_TEST_REQUIRE(read_back.base.has_value());
  BOOST_TEST(read_back.base->train.file == folder / "base/train.bin");
  BOOST_TEST(read_back.base->validation.tokens == 15);
  BOOST_TEST(read_back.digest == sha256_of_file(folder / "manifest.json"));
}

BOOST_AUTO_TEST_CASE(base_may_be_absent_and_tokens_wide) {
  manifest["base"] = nullptr;
  manifest["dtype"] = "uint32";
  BOOST_TEST(!read().base.has_value());
  BOOST_TEST((read().users[0].train.type == TokenType::uint32));
  manifest.erase("base");
  BOOST_TEST(!read().base.has_value());
}

BOOST_AUTO_TEST_CASE(missing_folder_or_file) {
  const std::string no_folder = test::message_of<DataError>([&] { (void)read_manifest(folder / "nowhere"); });
  check_contains(no_folder, {"nowhere", "no such data-set folder", "data_prep"});
  check_contains(test::message_of<DataError>([&] { (void)read_manifest(folder); }), {"manifest.json"});
}

BOOST_AUTO_TEST_CASE(not_json) {
  for (const char* text : {"{\"format\": ", "tokens", "{} {}"}) {
    test::write_text(folder / "manifest.json", text);
    check_contains(test::message_of<DataError>([&] { (void)read_manifest(folder); }),
                   {"manifest.json", "not valid JSON"});
  }
  for (const char* text : {"[]", "3", "null"}) {
    test::write_text(folder / "manifest.json", text);
    check_contains(test::message_of<DataError>([&] { (void)read_manifest(folder); }),
                   {"manifest.json", "'format'"});
  }
}

BOOST_AUTO_TEST_CASE(nested_without_end) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  test::write_text(folder / "manifest.json", "{\"users\": " + deep + "}");
  check_contains(test::message_of<DataError>([&] { (void)read_manifest(folder); }),
                 {"manifest.json", "nested more than 64 levels deep"});
}

BOOST_AUTO_TEST_CASE(names_that_no_message_can_show) {
  for (const char* name : {"a\nb", "\x1b[2J", "\x7f"}) {
    check_contains(refusal([&](Json& m) { m["name"] = name; }), {"'name'", "printable"});
    check_contains(refusal([&](Json& m) { m["users"][0]["splits"]["test"]["file"] = name; }),
                   {"'users[0].splits.test.file'", "inside"});
  }
  check_contains(refusal([](Json& m) { m["name"] = std::string(65, 'x'); }), {"'name'", "64 bytes"});
}

BOOST_AUTO_TEST_CASE(links_that_lead_nowhere_or_to_themselves) {
  std::filesystem::create_symlink("loop.bin", folder / "loop.bin");
  check_contains(refusal([](Json& m) { m["users"][0]["splits"]["test"]["file"] = "loop.bin"; }),
                 {"test.file"});
  const std::filesystem::path far = folder / std::string(5000, 'x');
  check_contains(test::message_of<DataError>([&] { (void)read_manifest(far); }), {"no such data-set folder"});
}

BOOST_AUTO_TEST_CASE(format_and_version) {
  check_contains(refusal([](Json& m) { m["format"] = "other"; }), {"'format'", "comigs-dataset"});
  check_contains(refusal([](Json& m) { m["format_version"] = 3; }), {"'format_version'", "newer comigs"});
  check_contains(refusal([](Json& m) { m.erase("format_version"); }), {"'format_version'"});
}

BOOST_AUTO_TEST_CASE(token_type) {
  check_contains(refusal([](Json& m) { m["dtype"] = "int64"; }), {"'dtype'", "'uint16' or 'uint32'"});
  check_contains(refusal([](Json& m) { m["dtype"] = 16; }), {"'dtype'"});
  check_contains(refusal([](Json& m) { m.erase("dtype"); }), {"'dtype'"});
}

BOOST_AUTO_TEST_CASE(tokeniser) {
  check_contains(refusal([](Json& m) { m.erase("tokeniser"); }), {"'tokeniser'"});
  check_contains(refusal([](Json& m) { m["tokeniser"].erase("vocabulary"); }), {"'tokeniser.vocabulary'"});
  check_contains(refusal([](Json& m) { m["tokeniser"]["file"] = "../tokenizer.json"; }),
                 {"'tokeniser.file'", "inside"});
  check_contains(refusal([](Json& m) { m["tokeniser"] = "gpt2"; }), {"'tokeniser."});
}

BOOST_AUTO_TEST_CASE(users) {
  check_contains(refusal([](Json& m) { m["users"] = Json::array(); }), {"'users'", "at least one"});
  check_contains(refusal([](Json& m) { m["users"] = "German"; }), {"'users'"});
  check_contains(refusal([](Json& m) { m.erase("users"); }), {"'users'"});
  check_contains(refusal([](Json& m) { m["users"][1].erase("name"); }), {"'users[1].name'"});
  check_contains(refusal([](Json& m) { m["users"][1]["name"] = ""; }), {"'users[1].name'"});
  check_contains(refusal([](Json& m) { m["users"][0] = 5; }), {"'users[0].splits'"});
  check_contains(refusal([](Json& m) { m["users"][0]["splits"].erase("test"); }), {"'users[0].splits.test'"});
}

BOOST_AUTO_TEST_CASE(counts) {
  const auto with_tokens = [&](const Json& value) {
    return refusal([&](Json& m) { m["users"][1]["splits"]["train"]["tokens"] = value; });
  };
  for (const Json& value : {Json(-1), Json(2.5), Json("30"), Json(nullptr), Json(std::uint64_t{1} << 60)})
    check_contains(with_tokens(value), {"'users[1].splits.train.tokens'", "a count"});
  check_contains(refusal([](Json& m) { m["tokeniser"]["vocabulary"] = -3; }),
                 {"'tokeniser.vocabulary'", "a count"});
}

BOOST_AUTO_TEST_CASE(paths_that_lead_out_of_the_folder) {
  const auto with_file = [&](const std::string& file) {
    return refusal([&](Json& m) { m["users"][0]["splits"]["test"]["file"] = file; });
  };
  for (const char* file : {"../test.bin", "german/../../test.bin", "/etc/passwd", ".."})
    check_contains(with_file(file), {"'users[0].splits.test.file'", "inside the data-set folder"});
  check_contains(with_file(""), {"'users[0].splits.test.file'"});
  manifest["users"][0]["splits"]["test"]["file"] = "german/../dutch/test.bin";
  BOOST_TEST(read().users[0].test.file == folder / "dutch/test.bin");
}

BOOST_AUTO_TEST_CASE(base_corpus) {
  check_contains(refusal([](Json& m) { m["base"] = Json::object(); }), {"'base.splits'"});
  check_contains(refusal([](Json& m) { m["base"]["splits"].erase("validation"); }),
                 {"'base.splits.validation'"});
}

BOOST_AUTO_TEST_CASE(opening_a_user_maps_its_three_splits) {
  std::filesystem::create_directories(folder / "dutch");
  const test::Tokens train = test::random_tokens(30, 50, 1), validation = test::random_tokens(20, 50, 2);
  test::write_tokens(folder / "dutch/train.bin", train);
  test::write_tokens(folder / "dutch/validation.bin", validation);
  test::write_tokens(folder / "dutch/test.bin", test::random_tokens(10, 50, 3));
  for (const char* split : {"train", "validation", "test"}) {
    const std::filesystem::path file = folder / "dutch" / (std::string(split) + ".bin");
    manifest["users"][1]["splits"][split]["sha256"] = sha256_of_file(file);
  }
  const Manifest read_back = read();
  std::filesystem::remove(folder / "dutch/test.bin");
  check_contains(test::message_of<DataError>([&] { (void)open_user(read_back, 1); }), {"dutch/test.bin"});
  test::write_tokens(folder / "dutch/test.bin", test::random_tokens(10, 50, 3));
  const UserData data = open_user(read_back, 1);
  BOOST_TEST(data.test.size() == 10);
  test::Tokens found(20);
  data.validation.read(0, found);
  BOOST_TEST((found == validation));
  test::Tokens changed = validation;
  changed[7] = (changed[7] + 1) % 50;
  test::write_tokens(folder / "dutch/validation.bin", changed);
  check_contains(test::message_of<DataError>([&] { (void)open_user(read_back, 1); }),
                 {"dutch/validation.bin", "SHA-256"});
}

BOOST_AUTO_TEST_CASE(names_are_printable_and_differ) {
  check_contains(refusal([](Json& m) { m["users"][1]["name"] = "German"; }),
                 {"'users[1].name'", "different"});
  for (const std::string& name : std::vector<std::string>{"a\nb", "\x1b[31m", std::string(65, 'x')})
    check_contains(refusal([&](Json& m) { m["users"][0]["name"] = name; }), {"'users[0].name'", "printable"});
}

BOOST_AUTO_TEST_CASE(files_must_not_be_links_to_elsewhere) {
  TemporaryFolder elsewhere;
  std::filesystem::create_directories(folder / "german");
  test::write_tokens(elsewhere.folder / "train.bin", {1, 2, 3});
  std::filesystem::create_symlink(elsewhere.folder / "train.bin", folder / "german/train.bin");
  check_contains(refusal([](Json&) {}), {"'users[0].splits.train.file'", "inside the data-set folder"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::data
