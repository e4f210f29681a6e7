#include "support.hpp"

#include <filesystem>

using namespace comigs::config;
using namespace comigs::config::test;

BOOST_AUTO_TEST_SUITE(job_file)

BOOST_AUTO_TEST_CASE(is_read_from_its_folder) {
  const JobFile job("[run]\noutput = there\nrounds = 7\n[data]\nfolder = d\n[model]\nfolder = m\n");
  const Config config = resolve(parse({job.path(), "--rounds", "8"}), 2);
  BOOST_TEST(config.run.output == "there");
  BOOST_TEST(config.run.rounds == 8);
  BOOST_TEST(resolve(parse({"--reproducible", job.path()}), 2).run.reproducible);
}

BOOST_AUTO_TEST_CASE(that_cannot_be_read_is_refused) {
  BOOST_TEST(words_error({"absent.ini"}) ==
             "cannot read the job file 'absent.ini': No such file or directory");
  const JobFile large(std::string(2 << 20, '#'));
  BOOST_TEST(words_error({large.path()}).ends_with("it is larger than 1 MiB, so no job file"));
}

BOOST_AUTO_TEST_CASE(comments_blanks_and_line_ends_do_not_matter) {
  const Config config = from_text(
      "# a comment\r\n; another = one\r\n\r\n  [run]  # why\r\n\trounds=7\t# half\r\n"
      "[method]\r\nname = x ; y=1 # z\r\n[user]\nbatch-sequences = 5\n[run]\nseed=4");
  BOOST_TEST(config.run.rounds == 7);
  BOOST_TEST(config.method.name == "x ; y=1");
  BOOST_TEST(config.users[0].batch_sequences == 5);
  BOOST_TEST(config.run.seed == 4U);
}

BOOST_AUTO_TEST_CASE(unknown_options_come_with_line_and_suggestion) {
  BOOST_TEST(text_error("[run]\nruonds = 3\n") ==
             "job.ini:2: unknown option 'ruonds' in [run]; did you mean 'rounds'?");
  BOOST_TEST(text_error("\n[run]\nexperts = 3\n") ==
             "job.ini:3: unknown option 'experts' in [run]; did you mean 'experts' in [user]?");
  BOOST_TEST(text_error("[run]\nmethod = local\n") ==
             "job.ini:2: unknown option 'method' in [run]; did you mean 'name' in [method]?");
  BOOST_TEST(text_error("[user.0]\nexpertz = 3\n") ==
             "job.ini:2: unknown option 'expertz' in [user.0]; did you mean 'experts'?");
  BOOST_TEST(text_error("[user.0]\nrounds = 3\n") ==
             "job.ini:2: unknown option 'rounds' in [user.0]; did you mean 'rounds' in [run]?");
  BOOST_TEST(text_error("[run]\ntemperature = 3\n") == "job.ini:2: unknown option 'temperature' in [run]");
  BOOST_TEST(text_error("rounds = 3\n") ==
             "job.ini:1: option 'rounds' before any [section]; did you mean 'rounds' in [run]?");
  BOOST_TEST(text_error("run.rounds = 3\n") ==
             "job.ini:1: option 'run.rounds' before any [section]; did you mean 'rounds' in [run]?");
}

BOOST_AUTO_TEST_CASE(unknown_sections_are_named_once) {
  BOOST_TEST(text_error("[optimizer]\nbeta1 = 0.5\nbeta2 = 0.5\n") ==
             "job.ini:1: unknown section [optimizer]; did you mean [optimiser]?");
  BOOST_TEST(contains(text_error("[user.x]\nexperts = 2\n"), "job.ini:1: unknown section [user.x]"));
  BOOST_TEST(contains(text_error("[user.-1]\nexperts = 2\n"), "unknown section [user.-1]"));
  BOOST_TEST(
      contains(text_error("[user.99999999999999999999]\n"), "unknown section [user.99999999999999999999]"));
  BOOST_TEST(contains(text_error("[users]\nexperts = 2\n"), "did you mean [user]?"));
}

BOOST_AUTO_TEST_CASE(values_that_cannot_be_come_with_line_and_section) {
  BOOST_TEST(text_error("[user.2]\n\nlora-rank = 0\n") ==
             "job.ini:3: [user.2] lora_rank: found '0', expected an integer from 1 to 4096");
  BOOST_TEST(text_error("[run]\nrounds =\n") ==
             "job.ini:2: [run] rounds: found '', expected an integer from 0 to 1000000");
}

BOOST_AUTO_TEST_CASE(an_option_given_twice_is_refused) {
  BOOST_TEST(text_error("[run]\nweights_every = 1\n[run]\nweights-every = 1\n") ==
             "job.ini:4: [run] weights_every: given more than once, expected once");
  BOOST_TEST(text_error("[user.0]\ntop_k = 1\ntop_k = 1\n") ==
             "job.ini:3: [user.0] top_k: given more than once, expected once");
}

BOOST_AUTO_TEST_CASE(lines_that_are_no_ini_are_refused) {
  BOOST_TEST(text_error("[run]\nrounds\n") ==
             "job.ini:2: found 'rounds', expected [section] or name = value");
  BOOST_TEST(text_error("[run\n") == "job.ini:1: found '[run', expected [section] or name = value");
  for (const char* ini : {"[]\n", "[ ]\n", "[", "]", "[user.]\nexperts = 2\n", "[.]", "{\"run\": 1}"}) {
    BOOST_TEST(text_error(ini).starts_with("job.ini:1: found '"), ini);
  }
  BOOST_TEST(contains(text_error("[data]\nfolder = a#b\n"), "job.ini:2: found '#' inside a value"));
}

BOOST_AUTO_TEST_CASE(bytes_that_are_no_text_do_no_harm) {
  const std::string zeros = "[run]\nrounds = 3" + std::string(1, '\0') + "\n";
  BOOST_TEST(contains(text_error(zeros), "found '3?', expected an integer"));
  BOOST_TEST(contains(text_error("\x7f"
                                 "ELF\x02\n"),
                      "found '?ELF?', expected [section] or name = value"));
  BOOST_TEST(contains(text_error("=\n[run]\n=5\n.=3\na.b.c=2\n"), "4 problems in the configuration:"));
}

BOOST_AUTO_TEST_CASE(inherits_what_it_does_not_say_itself) {
  const JobFile parent("[run]\nrounds = 7\nseed = 3\n[user]\nexperts = 2\n[user.0]\nexperts = 4\n");
  // The name is relative to the file that inherits.
  const std::string name =
      std::filesystem::relative(parent.path(), std::filesystem::temp_directory_path()).string();
  const JobFile child("[job]\ninherit = ../" + name +
                      "\n[run]\nseed = 5\noutput = o\n[data]\nfolder = d\n[model]\nfolder = m\n");
  const Config config = resolve(parse({child.path(), "--rounds", "8"}), 2);
  BOOST_TEST(config.run.rounds == 8);
  BOOST_TEST(config.run.seed == 5U);
  BOOST_TEST(config.users[0].experts == 4);
  BOOST_TEST(config.users[1].experts == 2);
  // What a file says of all users goes above what its parent says of one.
  const JobFile other("[job]\ninherit = ../" + name +
                      "\n[user]\nexperts = 3\n[run]\noutput = o\n[data]\nfolder = d\n[model]\nfolder = m\n");
  BOOST_TEST(resolve(parse({other.path()}), 2).users[0].experts == 3);
}

BOOST_AUTO_TEST_CASE(inheritance_that_cannot_be_is_refused) {
  BOOST_TEST(text_error("[job]\ninherit = absent.ini\n") ==
             "job.ini: [job] inherit: cannot read the job file 'absent.ini': No such file or directory");
  BOOST_TEST(text_error("[job]\ninherits = other.ini\n") ==
             "job.ini:2: unknown option 'inherits' in [job], which knows 'inherit'");
  BOOST_TEST(text_error("[job]\ninherit = a.ini\ninherit = b.ini\n") ==
             "job.ini:3: [job] inherit: given more than once, expected once");
  BOOST_TEST(text_error("[job]\ninherit =\n") ==
             "job.ini:2: [job] inherit: found nothing, expected a job file");
  BOOST_CHECK_EXCEPTION(
      parse_recorded("[run]\n[job]\ninherit = /etc/passwd\n", "results.h5"), comigs::ConfigError,
      [](const comigs::ConfigError& error) {
        return error.what() ==
               std::string("results.h5:2: found [job], expected a configuration that inherits nothing");
      });
  const JobFile own("[job]\ninherit = job.ini\n");
  BOOST_TEST(words_error({own.path()}).find("inherits itself") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()
