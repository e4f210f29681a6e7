// A configuration, a data set and a base model that do not go together are refused with a message that says
// what to do.
#include "comigs/job/checks.hpp"

#include <boost/test/unit_test.hpp>

#include <fstream>

#include "comigs/base/error.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"

namespace comigs::job {

namespace {

using test::check_contains;
using test::message_of;

data::UserShards shards_of(const std::string& name, std::int64_t train, std::int64_t validation,
                           std::int64_t test) {
  return {.name = name,
          .train = {.file = name + "/train.bin", .tokens = train},
          .validation = {.file = name + "/validation.bin", .tokens = validation},
          .test = {.file = name + "/test.bin", .tokens = test}};
}

struct Setting {
  data::Manifest manifest;
  config::Config config;
  model::Architecture architecture = model::gpt2_architecture(2, 16, 2, 1000, 64);

  Setting() {
    manifest.name = "sample";
    manifest.vocabulary = 1000;
    for (const char* name : {"German", "Dutch", "French", "Italian"})
      manifest.users.push_back(shards_of(name, 500, 200, 100));
    config.data.folder = "texts";
    config.model.folder = "base";
    config.users.resize(4);
    for (config::User& user : config.users) user.context_tokens = 64;
  }

  void check() const { check_base(config, manifest, architecture); }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(checks, Setting)

BOOST_AUTO_TEST_CASE(what_fits_passes) {
  BOOST_CHECK_NO_THROW(check_users(manifest, 4));
  BOOST_CHECK_NO_THROW(check());
  BOOST_CHECK_NO_THROW(check_shards(config.users[0], manifest.users[0]));
}

BOOST_AUTO_TEST_CASE(one_rank_is_one_user) {
  check_contains(
      message_of<ConfigError>([&] { check_users(manifest, 3); }),
      {"3 MPI ranks for the 4 users", "'sample'", "German, Dutch, French, Italian", "mpirun -n 4"});
  manifest.users.resize(1);
  check_contains(message_of<ConfigError>([&] { check_users(manifest, 2); }),
                 {"2 MPI ranks for the 1 user ", "mpirun -n 1"});
  manifest.users = {shards_of("A", 1, 1, 1), shards_of("B", 1, 1, 1)};
  check_contains(message_of<ConfigError>([&] { check_users(manifest, 1); }), {"1 MPI rank for the 2 users"});
}

BOOST_AUTO_TEST_CASE(vocabularies_must_match_up_to_padding) {
  for (const std::int64_t entries : {1000, 1024, 1127}) {
    architecture.vocabulary = entries;
    BOOST_CHECK_NO_THROW(check());
  }
  for (const std::int64_t entries : {999, 1128, 50257}) {
    architecture.vocabulary = entries;
    check_contains(
        message_of<DataError>([&] { check(); }),
        {"base", "vocabulary of " + std::to_string(entries), "texts", "1000 entries", "tokeniser"});
  }
}

// The base's own tokeniser vouches for its tokens, however many rows the embedding has beyond them.
BOOST_AUTO_TEST_CASE(own_tokeniser_decides) {
  TemporaryFolder base, data;
  config.model.folder = base.folder.string();
  config.data.folder = data.folder.string();
  manifest.tokeniser = data.folder / "tokenizer.json";
  manifest.vocabulary = 300;
  const auto write = [](const TemporaryFolder& holder, const std::string& last) {
    std::ofstream(holder.folder / "tokenizer.json")
        << R"({"model": {"vocab": {"a": 0, ")" << last << R"(": 299}}})";
  };
  write(base, "b");
  write(data, "b");
  for (const std::int64_t rows : {300, 427, 428, 512, 50257}) {
    architecture.vocabulary = rows;
    BOOST_CHECK_NO_THROW(check());
    BOOST_TEST(takes_vocabulary(300, config.model.folder, architecture));
    BOOST_TEST(!takes_vocabulary(299, config.model.folder, architecture));
    BOOST_TEST(!takes_vocabulary(rows + 1, config.model.folder, architecture));
  }
  architecture.vocabulary = 299;
  const std::string message = message_of<DataError>([&] { check(); });
  check_contains(message, {"a vocabulary of 299", "its tokenizer.json", "300 entries", "resize"});
  BOOST_TEST(message.find("prepare the data") == message.npos);
  architecture.vocabulary = 512;
  write(data, "c");
  check_contains(message_of<DataError>([&] { check(); }), {(base.folder / "tokenizer.json").string(),
                                                           "another tokeniser", "'b' is 299 in it, absent"});
}

BOOST_AUTO_TEST_CASE(contexts_must_fit_the_positions) {
  config.users[2].context_tokens = 65;
  check_contains(message_of<ConfigError>([&] { check(); }),
                 {"[user.2] context_tokens = 65", "base", "64 positions"});
}

BOOST_AUTO_TEST_CASE(splits_must_be_long_enough) {
  const auto refusal = [&](std::int64_t train, std::int64_t validation, std::int64_t test) {
    return message_of<DataError>(
        [&] { check_shards(config.users[0], shards_of("German", train, validation, test)); });
  };
  check_contains(refusal(64, 200, 100),
                 {"German/train.bin", "64 tokens", "at least 65", "context_tokens = 64"});
  check_contains(refusal(500, 10, 100), {"German/validation.bin", "10 tokens", "at least 65"});
  check_contains(refusal(500, 200, 1), {"German/test.bin", "1 tokens", "at least 2"});
  BOOST_CHECK_NO_THROW(check_shards(config.users[0], shards_of("German", 65, 65, 2)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
