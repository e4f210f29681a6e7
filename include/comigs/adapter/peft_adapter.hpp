// An adapter as PEFT keeps it on disk: what users' LoRAs can begin as.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <tuple>

#include "comigs/adapter/parameters.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::adapter {

/// The LoRAs of a PEFT folder (adapter_config.json, adapter_model.safetensors) beside projections of a base.
/// Holds copies: the files may change afterwards.
class PeftAdapter {
 public:
  /// Throws DataError naming the file, what was found and what was expected: where there is no such adapter;
  /// where it is another than plain LoRA (DoRA, biases, whole modules); where it has tensors that belong to
  /// no projection of the architecture, or of other shapes; where a number is not finite.
  PeftAdapter(const std::filesystem::path& folder, const model::Architecture& architecture);

  /// Whether a user with such a model could begin as one.
  [[nodiscard]] static bool may_begin(const UserModel& user_model) { return user_model.trains_lora(); }

  /// SHA-256 of the lines that `sha256sum` prints for the two files in the order of their names.
  [[nodiscard]] const std::string& digest() const noexcept { return digest_; }

  /// Throws ConfigError where one of its LoRAs has a larger rank than the user's there, and DataError where
  /// its numbers are beyond float32 at the user's scale. `user`: whom messages are about; `section`: of its
  /// options.
  void check_fits(const model::Architecture& architecture, const UserModel& user_model,
                  const std::string& user, const std::string& section) const;

  /// Attention and every expert become the same function as the adapter's LoRAs, of what has just been drawn
  /// (Parameters::initialise): A's first rows are the adapter's, the others as drawn; B's first columns are
  /// the adapter's times its scale over gamma, the others 0. What the adapter lacks stays as drawn.
  void put_into(Parameters& parameters) const;

 private:
  struct StoredLora {
    at::Tensor A, B;     ///< [r, in], [out, r], float32 on the CPU
    double scale = 1.0;  ///< of B A
    std::string place;   ///< "FILE: 'MODULE'", for messages
  };
  using Key = std::tuple<Role, std::int64_t, std::int64_t>;  ///< role, layer, site

  /// What the adapter has beside the projection that a part is of; nullptr: nothing.
  [[nodiscard]] const StoredLora* beside(const Part& part) const;

  class Reader;

  std::string digest_;
  std::map<Key, StoredLora> loras_;
};

}  // namespace comigs::adapter
