// All trainable numbers of a user: one flat block, ordered by who shares them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comigs/adapter/layout.hpp"

namespace comigs::adapter {

/// A LoRA: x -> gamma (x A^T) B^T. A [R, in], B [out, R]: float32 views into the block, or
/// copies in the activations' precision.
struct Lora {
  at::Tensor A, B;
};

/// Owns the block and its gradients, as the layout has it: float32, contiguous. Each part is an autograd leaf
/// whose values and gradient are views of the two blocks.
class Parameters {
 public:
  Parameters(const model::Architecture& architecture, const UserModel& user_model, const at::Device& device);

  /// Draws each part as its kind has it (LoRA: docs/methods.md). Shared parts are drawn alike by all users,
  /// own parts by `user`. Depends on the arguments alone.
  void initialise(std::uint64_t seed, std::int64_t user);

  /// Decides which leaves autograd tracks: the other phase's parameters, and factors that are not trained,
  /// get no gradient at all.
  void track(bool adapters, bool routers);

  /// The leaf of each of the layout's parts.
  [[nodiscard]] const std::vector<at::Tensor>& leaves() const noexcept { return leaves_; }
  /// Every LoRA that is selected by role, in the order of the parts: attention first, then expert by expert.
  [[nodiscard]] std::vector<Lora> loras(const Select& select = select::factors()) const;

  [[nodiscard]] const Layout& layout() const noexcept { return layout_; }
  [[nodiscard]] const UserModel& user_model() const noexcept { return user_model_; }
  [[nodiscard]] std::int64_t layers() const noexcept { return layers_; }
  [[nodiscard]] const at::Tensor& values() const noexcept { return values_; }        ///< [P]
  [[nodiscard]] const at::Tensor& gradients() const noexcept { return gradients_; }  ///< [P]
  /// SHA-256 of the values, hexadecimal.
  [[nodiscard]] std::string digest() const;

  /// Frobenius norms of gamma B A, or of what stands alone: [layer, expert, projection], row-major, for
  /// `experts` experts (NaN beyond ours).
  [[nodiscard]] std::vector<float> update_norms(std::int64_t experts) const;

 private:
  UserModel user_model_;
  Layout layout_;
  std::int64_t layers_;
  at::Tensor values_, gradients_;
  std::vector<at::Tensor> leaves_;
};

/// Whose draw a part begins as: everybody's where it is shared.
[[nodiscard]] std::uint32_t drawn_by(const Part& part, const UserModel& user_model, std::uint32_t user);

/// ||B A||_F of each LoRA, float64 [count] on its device, through R x R Gram matrices: tr((B^T B)(A A^T)) is
/// its square.
[[nodiscard]] at::Tensor product_norms(const std::vector<Lora>& loras);

[[nodiscard]] inline Widths widths(const Lora& lora) { return {.in = lora.A.size(1), .out = lora.B.size(0)}; }

/// The elements of a slice, as a view.
[[nodiscard]] at::Tensor view(const at::Tensor& block, const Slice& slice);

}  // namespace comigs::adapter
