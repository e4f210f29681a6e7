// What `comigs pretrain` is told: the size of a small base model and how it is trained from scratch.
#pragma once

#include "comigs/config/config.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace comigs::config {

struct Pretrain {
  std::string data;    ///< data-set folder whose manifest has a base corpus
  std::string output;  ///< Hugging Face folder to write
  std::int64_t layers = 4;
  std::int64_t width = 256;  ///< a multiple of heads
  std::int64_t heads = 4;
  std::int64_t context_tokens = 128;  ///< length of a sequence, and of the model's position table
  std::int64_t batch_sequences = 32;  ///< a step, over all ranks
  std::int64_t steps = 600;
  double learning_rate = 1e-3;    ///< peak
  double warmup_fraction = 0.05;  ///< share of the steps in which the rate rises
  double final_fraction = 0.1;    ///< the cosine ends at this fraction of the peak
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  std::int64_t evaluate_every = 100;  ///< steps between evaluations; the last step always is
  std::uint64_t seed = 0;
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t threads = 0;  ///< compute threads a rank; 0: its share of the cores it may use
  double patience = 3600.0;  ///< seconds that ranks wait for each other; 0: for ever
};

/// Options of `comigs pretrain`, by the rules of `parse` and `resolve`; an INI file has the one section
/// [pretrain]. `arguments` are those after the sub-command's name. Throws ConfigError with all problems.
[[nodiscard]] Pretrain parse_pretrain(const std::vector<std::string>& arguments);

/// All problems of a record however it was made; empty: none.
[[nodiscard]] std::vector<std::string> validate(const Pretrain& pretrain);

/// The record as INI text that `parse_pretrain` reads back.
[[nodiscard]] std::string echo(const Pretrain& pretrain);

/// What `comigs pretrain --help` prints: all options with defaults and units, 100 columns.
[[nodiscard]] std::string pretrain_help();

}  // namespace comigs::config
