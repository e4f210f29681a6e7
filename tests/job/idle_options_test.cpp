// What a job says although nothing comes of it.
#include "comigs/job/idle_options.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "comigs/adapter/kind.hpp"
#include "comigs/base/error.hpp"
#include "comigs/config/option.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"
#include "support/messages.hpp"

namespace comigs::job {

namespace {

using test::check_contains;

struct Said {
  config::Layered given;
  config::Config config;
  const federation::Method& method;

  explicit Said(std::vector<std::string> words, const std::string& method_name)
      : given(), method(federation::find_method(method_name)) {
    for (const char* word : {"--output", "out", "--data", "data", "--model", "base", "--method"})
      words.emplace_back(word);
    words.push_back(method_name);
    given = config::parse(words);
    config = config::resolve(given, 2);
  }

  [[nodiscard]] std::string idle() const {
    return idle_options(method, config, federation::user_models(method, config.users), given);
  }
};

std::string idle(const char* method, const std::vector<std::string>& words) {
  return Said(words, method).idle();
}

// What the method says against the job; empty: nothing.
std::string refusal(const char* method, const std::vector<std::string>& words) {
  const Said said(words, method);
  try {
    federation::check_method(said.method, said.config);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return {};
}

std::string by_default(const config::Option<config::UserJob>& option) { return option.print({}); }

// Some other value of an option; the method may refuse it.
std::string other_value(const config::Option<config::UserJob>& option) {
  for (const char* value :
       {"3", "0.5", "true", "false", "bf16", "continue", "uniform", "tokens", "train+validation", "0+1"})
    if (option.info.accepts(value, option.info.range) && by_default(option) != value) return value;
  return {};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(options_without_effect)

BOOST_AUTO_TEST_CASE(defaults_are_never_told_of) {
  for (const federation::Method& method : federation::methods())
    BOOST_TEST(idle(method.name, {}).empty(), method.name);
}

BOOST_AUTO_TEST_CASE(what_a_kind_of_adapter_reads_are_options_of_users) {
  const auto& options = config::job_table().options;
  for (const adapter::AdapterKind* kind : adapter::kinds::all)
    for (const std::string_view option : kind->options())
      BOOST_TEST(std::ranges::count_if(options,
                                       [&](const auto& row) {
                                         return row.info.section == "user" && row.info.name == option;
                                       }) == 1,
                 kind->name << ": " << option);
}

BOOST_AUTO_TEST_CASE(each_is_named_as_it_was_given_with_the_reason) {
  BOOST_TEST(idle("fedavg", {"--router-every", "5", "--router-steps", "2", "--pruning-strength", "0.99",
                             "--lora-rank", "4"}) ==
             "without effect with method 'fedavg': --router-every, --router-steps (the method has no "
             "routers); --pruning-strength (the method prunes no ranks)");
  config::Layered layered = config::parse_text("[user]\ntop_k = 2\n", "job.ini");
  Said said({}, "local");
  layered.settings.insert(layered.settings.end(), said.given.settings.begin(), said.given.settings.end());
  said.given = layered;
  check_contains(said.idle(), {"job.ini:2: [user] top_k (every expert is active for every token)"});
}

BOOST_AUTO_TEST_CASE(what_one_user_has_use_for_is_not_told_of) {
  BOOST_TEST(idle("comigs-1gxs", {"--experts", "2,1", "--router-learning-rate", "0.1"}).empty());
  BOOST_TEST(idle("comigs-1gxs", {"--experts", "1,1", "--router-learning-rate", "0.1"}) ==
             "without effect with method 'comigs-1gxs': --router-learning-rate (a single expert needs no "
             "router)");
  check_contains(idle("comigs-1gxs", {"--experts", "2,1", "--user.1.router-learning-rate", "0.1"}),
                 {"--user.1.router-learning-rate"});
}

BOOST_AUTO_TEST_CASE(reasons_are_those_of_the_methods) {
  struct Case {
    const char* method;
    std::vector<std::string> words;
    const char* reason;  // empty: it has an effect
  };
  const std::vector<Case> cases = {
      {"fedavg-moe", {"--router-every", "3"}, "routers are trained with the experts"},
      {"fedavg-moe", {"--router-learning-rate", "0.1"}, ""},
      {"comigs-2g", {"--router-steps", "0", "--router-every", "3"}, "router_steps is 0"},
      {"comigs-2g", {"--load-balancing", "uniform"}, "their balance is a constant"},
      {"comigs-2g", {"--top-k", "1", "--load-balancing", "uniform"}, ""},
      {"comigs-2g", {"--top-k", "1", "--load-balancing", "generalist"}, "without a single generalist"},
      {"comigs-1g1s", {"--load-balancing", "generalist"}, "their balance is a constant"},
      {"comigs-1g1s", {"--generalist-importance", "0.9"}, ""},
      {"comigs-1gxs", {"--experts", "4", "--load-balancing", "generalist"}, ""},
      {"comigs-1gxs", {"--experts", "4", "--load-balancing-strength", "published"}, ""},
      {"comigs-2g", {"--top-k", "1", "--generalist-importance", "0.9"}, "no single generalist is favoured"},
      {"fedavg", {"--generalist-importance", "0.9"}, "the method has no routers"},
      {"fedavg", {"--rank-regulariser", "0"}, "the method prunes no ranks"},
      {"fedavg", {"--rank-regulariser", "0.01"}, ""},
      {"local", {"--attention-sharing", "own"}, "the method shares no attention"},
      {"comigs-2s", {"--attention-sharing", "own"}, ""},
      {"pretrained", {"--attention-rank", "4"}, "nothing is trained"},
      {"pretrained", {"--prompt-tokens", "4"}, "nothing is trained"},
      {"fedavg", {"--prompt-tokens", "4"}, "the method trains LoRA"},
      {"fedprompt", {"--lora-rank", "4"}, "the method trains prompts"},
      {"mop", {"--attention-sharing", "own"}, "the method trains prompts"},
      {"comigs-1g1s", {"--load-balancing", "none", "--load-balancing-weight", "1"}, "load_balancing is none"},
      {"pcl", {"--averaging", "uniform"}, "the method has weights of its own"},
      {"local", {"--activations", "bf16"}, "beside float32 weights all is float32"},
      {"local", {"--activations", "float32", "--precision", "bf16"}, ""},
      {"local", {"--averaging", "uniform"}, "nothing is averaged"},
      {"local", {"--reproducible", "false"}, "nothing is summed over users"},
      {"flexlora", {"--reproducible", "false"}, "in users' order anyway"},
      {"hetlora", {"--reproducible", "false"}, ""},
      {"hetlora", {"--pruning-strength", "1"}, "no rank can be pruned"},
      {"hetlora", {"--pruning-strength", "0.5"}, ""},
      {"comigs-1gxs", {"--step-budget", "2"}, "the number of experts is given"},
      {"comigs-1gxs", {"--experts", "auto", "--step-budget", "2"}, ""},
      {"comigs-1gxs", {"--generalists", "0"}, "no choice of generalists"},
      {"mop", {"--gate-targets", "clusters"}, ""},
      {"mop", {"--gate-targets", "clusters", "--gate-warmup-rounds", "0"}, "gate_warmup_rounds is 0"},
      {"mop-1gxs", {"--gate-targets", "clusters"}, "the gate is trained in turn"},
      {"mop-equal", {"--gate-targets", "clusters"}, "the method has no gate by sequence"},
      {"fedavg", {"--gate-targets", "categories"}, "the method trains LoRA"},
      {"pretrained", {"--rounds", "7"}, "nothing is trained"},
      {"pretrained", {"--train-evaluation-tokens", "7"}, ""},
  };
  for (const Case& item : cases) {
    const std::string found = idle(item.method, item.words);
    BOOST_TEST_CONTEXT(item.method << " " << item.words[0] << ": " << found) {
      BOOST_TEST(found.empty() == std::string(item.reason).empty());
      check_contains(found, {item.reason});
    }
  }
}

BOOST_AUTO_TEST_CASE(a_number_of_experts_that_is_given_is_not_passed_over) {
  check_contains(refusal("hetlora", {"--experts", "2"}), {"[user.0] experts = 2", "'hetlora' has 1"});
  check_contains(refusal("flexlora", {"--experts", "1,2"}), {"[user.1] experts = 2", "'flexlora' has 1"});
  check_contains(refusal("hetlora", {"--user.1.experts", "2"}), {"[user.1] experts = 2"});
  BOOST_TEST(refusal("hetlora", {}).empty());
  BOOST_TEST(refusal("hetlora", {"--experts", "1"}).empty());
}

BOOST_AUTO_TEST_CASE(a_top_k_that_is_given_is_not_passed_over) {
  check_contains(refusal("comigs-1gxs", {"--experts", "1", "--top-k", "2"}),
                 {"[user.0] top_k = 2", "no user has more than 1 expert"});
  BOOST_TEST(refusal("comigs-1gxs", {"--experts", "1"}).empty());
  const auto limits = [](const std::vector<std::string>& words) {
    const Said said(words, "comigs-1gxs");
    return limits_of_top_k(said.method, said.config.users);
  };
  check_contains(limits({"--experts", "2,1", "--top-k", "2"}), {"has user 1"});
  BOOST_TEST(limits({"--experts", "2,1"}).empty());
}

// With every method, an option is told of or refused with the value of its default where it is with another
// value, but for those whose default is all that the method can do.
BOOST_AUTO_TEST_CASE(the_default_s_value_is_heard_like_any_other) {
  for (const federation::Method& method : federation::methods())
    for (const config::Option<config::UserJob>& option : config::job_table().options) {
      const std::string other = other_value(option), flag = "--" + option.info.flag();
      const bool is_either =
          option.info.is_flag || option.info.is_word;  // refused as such: another value goes
      if (other.empty() || is_either || option.info.extra.required) continue;
      const auto heard = [&](const std::string& value) {
        const std::vector<std::string> words = {flag, value};
        return !refusal(method.name, words).empty() || !idle(method.name, words).empty();
      };
      // A number of experts that the method has anyway is obeyed.
      const bool obeyed = option.info.name == "experts" && method.experts == config::User().experts;
      // 3 of 2 experts cannot be; 2 of 2 can.
      const bool possible = option.info.name == "top_k" && method.gate == adapter::Gate::top_k;
      if (heard(other) && !obeyed && !possible)
        BOOST_TEST(heard(by_default(option)), method.name << " " << flag << " " << by_default(option));
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::job
