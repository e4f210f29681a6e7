// Token files: read as they lie, checked when they are opened.
#include "comigs/data/token_shard.hpp"

#include <boost/test/unit_test.hpp>

#include <optional>

#include "comigs/base/error.hpp"
#include "support/messages.hpp"
#include "support/temporary_folder.hpp"
#include "support/tokens.hpp"

namespace comigs::data {

namespace {

struct ShardFile : TemporaryFolder {
  std::filesystem::path file = folder / "tokens.bin";

  [[nodiscard]] std::string refusal(std::int64_t tokens, std::int64_t vocabulary,
                                    TokenType type = TokenType::uint16) const {
    const std::string message = test::message_of<DataError>([&] {
      TokenShard({file, type, tokens}, vocabulary);
    });
    test::check_contains(message, {file.string()});
    return message;
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(token_shards, ShardFile)

BOOST_AUTO_TEST_CASE(tokens_come_back) {
  for (const TokenType type : {TokenType::uint16, TokenType::uint32}) {
    const std::int64_t vocabulary = type == TokenType::uint16 ? 65536 : 200000;
    test::Tokens tokens = test::random_tokens(1000, vocabulary, 4);
    tokens[17] = vocabulary - 1;
    const TokenShard shard = test::write_shard(file, tokens, vocabulary, type);
    BOOST_TEST(shard.size() == 1000);
    test::Tokens all(1000), part(30);
    shard.read(0, all);
    BOOST_TEST((all == tokens));
    shard.read(970, part);
    BOOST_TEST((part == test::Tokens(tokens.end() - 30, tokens.end())));
    shard.read(1000, {});
  }
}

BOOST_AUTO_TEST_CASE(copies_keep_the_mapping) {
  std::optional<TokenShard> shard(test::write_shard(file, {1, 2, 3}, 4));
  const TokenShard copy = *shard;
  shard.reset();
  std::filesystem::remove(file);
  test::Tokens tokens(3);
  copy.read(0, tokens);
  BOOST_TEST((tokens == test::Tokens{1, 2, 3}));
}

BOOST_AUTO_TEST_CASE(size_must_be_what_the_manifest_promises) {
  test::write_tokens(file, {1, 2, 3, 4, 5});
  test::check_contains(refusal(4, 10), {"10 bytes found", "4 tokens of 2 bytes"});
  test::check_contains(refusal(6, 10), {"6 tokens of 2 bytes"});
  test::check_contains(refusal(5, 10, TokenType::uint32), {"5 tokens of 4 bytes"});
  test::write_text(file, "abc");
  test::check_contains(refusal(1, 65536), {"3 bytes found"});
}

BOOST_AUTO_TEST_CASE(tokens_must_be_in_the_vocabulary) {
  test::write_tokens(file, {1, 9, 10, 3});
  test::check_contains(refusal(4, 10), {"token 10 at position 2", "vocabulary of 10"});
  test::write_tokens(file, {70000, 1}, TokenType::uint32);
  test::check_contains(refusal(2, 70000, TokenType::uint32), {"token 70000 at position 0"});
  BOOST_CHECK_NO_THROW(TokenShard({file, TokenType::uint32, 2}, 70001));
}

BOOST_AUTO_TEST_CASE(empty_and_missing_files) {
  test::check_contains(refusal(5, 10), {"No such file"});
  test::write_tokens(file, {});
  test::check_contains(refusal(0, 10), {"empty"});
  test::check_contains(refusal(5, 10), {"empty"});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::data
