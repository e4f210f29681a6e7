// The trainable tensors of a user in the order of the block: the one place that says where each lies.
#pragma once

#include <cstdint>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::adapter {

struct UserModel;

/// One trainable tensor: a LoRA factor, or a layer's router.
struct ParameterSpec {
  enum class Role { attention, expert, router } role = Role::attention;
  enum class Factor { A, B, router } factor = Factor::A;
  std::int64_t layer = 0;
  std::int64_t expert = 0;  ///< for Role::expert
  std::int64_t site = 0;    ///< index in model::Architecture::attention; for an expert 0: up, 1: down
  std::int64_t rows = 0, columns = 0;

  [[nodiscard]] std::int64_t count() const { return rows * columns; }
};

/// All of them: attention, expert 0, expert 1, ..., each as A of every layer and then B of every layer; then
/// the routers.
[[nodiscard]] std::vector<ParameterSpec> parameter_specs(const model::Architecture& architecture,
                                                         const UserModel& user_model);

/// The same, named for storage, over a host copy of the block.
[[nodiscard]] std::vector<ParameterView> stored_parameters(const model::Architecture& architecture,
                                                           const UserModel& user_model, const float* block);

}  // namespace comigs::adapter
