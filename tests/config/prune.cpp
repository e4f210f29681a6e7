#include "support.hpp"

#include "comigs/config/prune.hpp"

using namespace comigs::config;
using namespace comigs::config::test;

namespace {

Words with_folders(const Words& words) {
  Words all{"--model", "base", "--output", "out", "--data", "texts"};
  all.insert(all.end(), words.begin(), words.end());
  return all;
}

std::string prune_error(const Words& words) {
  return error_of([&] { (void)parse_prune(with_folders(words)); });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(pruning)

BOOST_AUTO_TEST_CASE(what_is_said_is_read) {
  const Prune share = parse_prune(with_folders({"--sparsity", "0.75", "--method", "wanda"}));
  BOOST_TEST(share.sparsity.share.value() == 0.75);
  BOOST_TEST(!share.pattern.is_said());
  BOOST_TEST((share.method == PruningMethod::wanda));
  BOOST_TEST(share.calibration_sequences == 128);
  const Prune runs = parse_prune(with_folders({"--pattern", "zeros=3,of=4", "--context-tokens", "64"}));
  BOOST_TEST(!runs.sparsity.share);
  BOOST_TEST(runs.pattern.zeros == 3);
  BOOST_TEST(runs.pattern.of == 4);
  BOOST_TEST((runs.method == PruningMethod::sparsegpt));
  BOOST_TEST(runs.context_tokens == 64);
  BOOST_TEST(print(runs.pattern) == "zeros=3,of=4");
  BOOST_TEST(print(ZeroPattern{}).empty());
  // Nothing is to be calibrated.
  BOOST_CHECK_NO_THROW(
      (void)parse_prune({"--model", "b", "--output", "o", "--method", "magnitude", "--sparsity", "0"}));
}

BOOST_AUTO_TEST_CASE(one_of_share_and_pattern) {
  BOOST_TEST(contains(prune_error({}), "--sparsity: not given, and no --pattern either, expected one"));
  BOOST_TEST(contains(prune_error({"--sparsity", "0.5", "--pattern", "zeros=2,of=4"}),
                      "--sparsity: found beside --pattern, expected one of them"));
}

BOOST_AUTO_TEST_CASE(numbers_that_cannot_be) {
  for (const char* share : {"1", "-0.1", "nan", "x", "75%", ""})
    BOOST_TEST(contains(prune_error({"--sparsity", share}), "--sparsity: found"), share);
  BOOST_TEST(prune_error({"--sparsity", "1.5"}) ==
             "--sparsity: found '1.5', expected a number from 0 to below 1");
  for (const char* pattern : {"2:4", "zeros=4,of=4", "zeros=5,of=4", "zeros=0,of=4", "zeros=-1,of=4", "of=4",
                              "zeros=2,of=", "zeros=2,of=4,", "zeros=1,of=5000", "zeros=1, of=4", "1,of=4"})
    BOOST_TEST(prune_error({"--pattern", pattern}) ==
                   fmt::format("--pattern: found '{}', expected zeros=N,of=M with N from 1 to below M, M at "
                               "most 4096",
                               pattern),
               pattern);
}

BOOST_AUTO_TEST_CASE(problems_come_at_once) {
  BOOST_TEST(error_of([] {
               (void)parse_prune({"job.ini", "--context-tokens", "1", "--paterns", "x"});
             }) ==
             "6 problems in the configuration:\n"
             "  - unknown option '--paterns'; did you mean '--pattern'?\n"
             "  - found 'job.ini', expected options alone\n"
             "  - --model: not given, it is required\n"
             "  - --output: not given, it is required\n"
             "  - --data: not given, expected a data set to calibrate on for --method sparsegpt\n"
             "  - --context-tokens: found '1', expected 0 or at least 2");
}

BOOST_AUTO_TEST_SUITE_END()
