// Writes results of made-up runs, whose values tests/python/commands/test_results_file.py knows:
// results_writer_demo FILE {four|one} ROUNDS
// After a round is written it prints "round N". Round 0 has no training perplexity, the last one has stored
// factors.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/results/results_file.hpp"

namespace {

using comigs::ParameterView;
using comigs::results::UserDescription;
using comigs::results::UserRound;

constexpr std::int64_t layers = 2, rank = 2, width = 3;

comigs::results::RunDescription description(const std::vector<std::int64_t>& experts) {
  const std::vector<std::string> names{"German", "Français", "日本語", "Dutch"};
  comigs::results::RunDescription run;
  run.title = "made-up run";
  run.program_version = "0.1.0";
  run.git_commit = "unknown";
  run.created = "2025-01-02T03:04:05Z";
  run.configuration = "[run]\nseed = 7\n";
  run.method = "comigs-1g1s";
  run.kind = "lora";
  run.data_set = "multilingual";
  run.base_model = "gpt2";
  run.base_digest = std::string(64, 'a');
  run.seed = 7;
  run.library_versions = {"Open MPI 4.1.4"};
  run.train_tokens_evaluated = "the first 1000 tokens of the training split";
  run.layers = layers;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const auto number = static_cast<std::int64_t>(i);
    run.users.push_back({.name = names[i],
                         .host = "host-" + std::to_string(i),
                         .device = "cpu",
                         .experts = experts[i],
                         .generalists = {0},
                         .expert_rank = rank,
                         .attention_rank = rank,
                         .top_k = std::min<std::int64_t>(2, experts[i]),
                         .train_tokens = 1000 + number,
                         .validation_tokens = 100 + number,
                         .test_tokens = 200 + number});
  }
  return run;
}

UserRound row(std::int64_t round, std::int64_t user, std::int64_t experts, std::int64_t users, bool last) {
  UserRound result;
  const double loss = 1.0 + 0.1 * static_cast<double>(user) + 0.01 * static_cast<double>(round);
  result.round = round;
  result.after = {{1000 * (loss + 0.001), round > 0 ? 1000 : 0},
                  {1000 * (loss + 0.002), 1000},
                  {1000 * (loss + 0.003), 1000}};
  if (last) {
    result.before = {{}, {500 * (loss + 0.004), 500}, {500 * (loss + 0.005), 500}};
  }
  for (std::int64_t layer = 0; experts > 1 && layer < layers; ++layer) {
    result.routing.entropy.push_back(static_cast<float>(10 * user + layer));
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      const auto value = static_cast<float>(1000 * round + 100 * user + 10 * layer + expert);
      result.routing.score.push_back(value);
      result.routing.load.push_back(-value);
    }
  }
  for (std::int64_t i = 0; i < layers * experts * 2; ++i) {
    result.update_norm.push_back(static_cast<float>(100 * user + i));
  }
  for (std::int64_t source = 0; source < users; ++source) {
    result.aggregation_weight.push_back(static_cast<double>(10 * user + source));
  }
  const auto seconds = static_cast<double>(round);
  result.seconds = {seconds + 0.1, seconds + 0.2, seconds + 0.3, seconds + 0.4,
                    seconds + 0.5, seconds + 0.6, seconds + 0.7};
  result.communication_bytes = 1'000'000'000'000 + user;
  result.peak_memory_bytes = 2'000'000'000'000 + user;
  return result;
}

struct Factors {
  std::vector<float> a, b;  // [rank, width] and [width, rank]
};

std::vector<ParameterView> views(const Factors& factors, std::int64_t experts) {
  std::vector<ParameterView> result;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      for (const std::string projection : {"up", "down"}) {
        result.push_back(
            {layer, expert, projection + "_A", rank, width, factors.a.data(), "lora_rank", "width"});
        result.push_back({layer, expert, projection + "_B", width, rank, factors.b.data(), "", ""});
      }
    }
  }
  return result;
}

void write(const std::string& path, const std::vector<std::int64_t>& experts, std::int64_t rounds) {
  comigs::results::RunDescription run = description(experts);
  run.rounds = rounds - 1;
  comigs::results::ResultsFile file(path, run);
  std::vector<Factors> factors(experts.size());
  std::vector<std::vector<ParameterView>> all_views;
  const auto users = static_cast<std::int64_t>(experts.size());
  for (std::int64_t user = 0; user < users; ++user) {
    Factors& own = factors[static_cast<std::size_t>(user)];
    for (std::int64_t i = 0; i < rank * width; ++i) {
      own.a.push_back(static_cast<float>(100 * user + i));
      own.b.push_back(static_cast<float>(-100 * user - i));
    }
    all_views.push_back(views(own, experts[static_cast<std::size_t>(user)]));
  }
  for (std::int64_t round = 0; round < rounds; ++round) {
    const bool last = round + 1 == rounds;
    std::vector<UserRound> rows;
    for (std::int64_t user = 0; user < users; ++user) {
      rows.push_back(row(round, user, experts[static_cast<std::size_t>(user)], users, last));
    }
    if (last) file.write_weights(round, all_views);
    file.write_round(rows);
    std::printf("round %lld\n", static_cast<long long>(round));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: results_writer_demo FILE {four|one} ROUNDS\n", stderr);
    return 2;
  }
  try {
    write(
        argv[1],
        std::string(argv[2]) == "one" ? std::vector<std::int64_t>{1} : std::vector<std::int64_t>{4, 2, 1, 2},
        std::atoll(argv[3]));
    return 0;
  } catch (const comigs::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
