#include "support.hpp"

using namespace comigs::config;
using namespace comigs::config::test;

BOOST_AUTO_TEST_SUITE(command_line)

BOOST_AUTO_TEST_CASE(names_take_dashes_or_underscores_and_an_equals_sign) {
  const Config config = from_words({"--weights-every", "2", "--evaluate_every=3", "--user.1.lora_rank", "5",
                                    "--method", "comigs_x", "--user.0.lora-rank=6"});
  BOOST_TEST(config.run.weights_every == 2);
  BOOST_TEST(config.run.evaluate_every == 3);
  BOOST_TEST(config.users[1].lora_rank == 5);
  BOOST_TEST(config.users[0].lora_rank == 6);
  BOOST_TEST(config.method.name == "comigs_x");
  BOOST_TEST(config.model.folder == "base");
  BOOST_TEST(config.data.folder == "texts");
  BOOST_TEST(config.run.output == "out");
}

BOOST_AUTO_TEST_CASE(a_flag_takes_no_value_or_true_or_false) {
  BOOST_TEST(!from_words({}).method.carry_phase_gradients);
  BOOST_TEST(from_words({"--carry-phase-gradients"}).method.carry_phase_gradients);
  BOOST_TEST(from_words({"--carry-phase-gradients", "--rounds", "3"}).run.rounds == 3);
  BOOST_TEST(from_words({}).run.reproducible);
  BOOST_TEST(!from_words({"--reproducible=false"}).run.reproducible);
  BOOST_TEST(!from_words({"--reproducible", "false"}).run.reproducible);
  BOOST_TEST(words_error({"--reproducible=maybe"}) ==
             "--reproducible: found 'maybe', expected true or false");
  for (const char* word : {"no", "0", "False", "ON"})
    BOOST_TEST(words_error({"--reproducible", word}).starts_with("--reproducible: found '"));
  BOOST_TEST(
      contains(words_error({"--reproducible", "absent.ini"}), "cannot read the job file 'absent.ini'"));
}

BOOST_AUTO_TEST_CASE(unknown_options_come_with_a_suggestion) {
  BOOST_TEST(words_error({"--ruonds", "5"}) == "unknown option '--ruonds'; did you mean '--rounds'?");
  BOOST_TEST(words_error({"--ruonds=5"}) == "unknown option '--ruonds'; did you mean '--rounds'?");
  BOOST_TEST(words_error({"--user.-1.memory", "5"}) ==
             "unknown option '--user.-1.memory'; did you mean '--memory'?");
  BOOST_TEST(words_error({"--round", "5"}) == "unknown option '--round'; did you mean '--rounds'?");
  BOOST_TEST(words_error({"--temperature", "5"}) == "unknown option '--temperature'");
  BOOST_TEST(words_error({"--user.0.expertz", "5"}) ==
             "unknown option '--user.0.expertz'; did you mean '--user.0.experts'?");
  BOOST_TEST(words_error({"--user.0.rounds", "5"}) ==
             "unknown option '--user.0.rounds'; did you mean '--rounds'?");
  BOOST_TEST(contains(words_error({"--user.x.experts", "5"}), "unknown option '--user.x.experts'"));
  BOOST_TEST(contains(words_error({"--user.-1.experts", "5"}), "unknown option '--user.-1.experts'"));
  BOOST_TEST(contains(words_error({"--run.rounds", "5"}), "unknown option '--run.rounds'"));
  BOOST_TEST(contains(words_error({"-q"}), "unknown option '-q'"));
}

BOOST_AUTO_TEST_CASE(experts_may_be_automatic) {
  const Config config = from_words({"--experts", "4,auto,1,auto", "--step-budget", "1.5"});
  BOOST_TEST(config.users[0].experts == 4);
  BOOST_TEST(config.users[1].experts == automatic_experts);
  BOOST_TEST(config.users[3].experts == automatic_experts);
  BOOST_TEST(words_error({"--experts", "0"}) ==
             "--experts: found '0', expected auto or an integer from 1 to 64");
  BOOST_TEST(words_error({"--user.1.step-budget", "0.5"}) ==
             "[user.1] step_budget: found 0.5, expected 0, or at least 1: a step with one expert is 1");
}

BOOST_AUTO_TEST_CASE(the_data_folder_is_known_before_the_number_of_users) {
  BOOST_TEST(data_folder(parse({"--data", "texts", "--experts", "1,2,3"})) == "texts");
  BOOST_TEST(data_folder(parse({"--output", "out"})).empty());
}

BOOST_AUTO_TEST_CASE(values_that_cannot_be_are_named) {
  BOOST_TEST(words_error({"--rounds", "five"}) ==
             "--rounds: found 'five', expected an integer from 0 to 1000000");
  BOOST_TEST(words_error({"--rounds", "-5"}) ==
             "--rounds: found '-5', expected an integer from 0 to 1000000");
  for (const std::string seed : {"9223372036854775808", "18446744073709551616", "-1"})
    BOOST_TEST(words_error({"--seed", seed}) ==
               "--seed: found '" + seed + "', expected an integer from 0 to 2^63 - 1");
  BOOST_TEST(words_error({"--device", "gpu"}) == "--device: found 'gpu', expected auto, cpu or cuda");
  BOOST_TEST(words_error({"--beta2", "1"}) == "--beta2: found '1', expected a number from 0 to below 1");
  BOOST_TEST(words_error({"--epsilon", "nan"}) == "--epsilon: found 'nan', expected a number above 0");
  BOOST_TEST(contains(words_error({"--method", "a\nb"}), "--method: found 'a?b', expected text"));
}

BOOST_AUTO_TEST_CASE(an_option_without_its_value_is_refused) {
  BOOST_TEST(words_error({"--rounds"}) == "--rounds: found no value, expected one");
  BOOST_TEST(words_error({"--rounds="}) == "--rounds: found no value, expected one");
  BOOST_TEST(contains(words_error({"--user.0.experts"}), "found no value, expected one"));
  BOOST_TEST(words_error({"--rounds", "--seed", "3"}) ==
             "--rounds: found no value but '--seed', expected one");
  BOOST_TEST(
      words_error({"--method", "--reproducible"}).starts_with("--method: found no value but '--reprod"));
}

BOOST_AUTO_TEST_CASE(an_option_given_twice_is_refused) {
  BOOST_TEST(words_error({"--rounds", "3", "--rounds", "4"}) ==
             "--rounds: given more than once, expected once");
  BOOST_TEST(words_error({"--user.0.top-k", "1", "--user.00.top_k", "2"}) ==
             "--user.00.top-k: given more than once, expected once");
}

BOOST_AUTO_TEST_CASE(two_job_files_are_refused) {
  BOOST_TEST(contains(words_error({"a.ini", "b.ini"}),
                      "found two job files, 'a.ini' and 'b.ini', expected one at most"));
  BOOST_TEST(words_error({"/"}) == "cannot read the job file '/': it is a folder");
}

BOOST_AUTO_TEST_CASE(an_unreadable_job_file_comes_with_the_other_problems) {
  BOOST_TEST(words_error({"absent.ini", "--ruonds", "5"}) ==
             "2 problems in the configuration:\n"
             "  - cannot read the job file 'absent.ini': No such file or directory\n"
             "  - unknown option '--ruonds'; did you mean '--rounds'?");
}

BOOST_AUTO_TEST_CASE(odd_words_do_no_harm) {
  for (const char* word :
       {"", "-", "--", "---", "--=", "--=5", "--.", "--user.", "--user..", "--user.0.", "=", "--user.*"}) {
    BOOST_TEST(!words_error({word, "--rounds", "x"}).empty(), word);
  }
}

BOOST_AUTO_TEST_CASE(help_is_seen_anywhere) {
  BOOST_TEST(wants_help({"--rounds", "3", "--help"}));
  BOOST_TEST(wants_help({"-h"}));
  BOOST_TEST(!wants_help({"--rounds", "3"}));
}

BOOST_AUTO_TEST_SUITE_END()
