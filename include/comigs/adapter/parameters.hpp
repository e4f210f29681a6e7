// All trainable numbers of a user: one flat block, ordered by who shares them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comigs/adapter/layout.hpp"

namespace comigs::adapter {

/// A LoRA: x -> gamma (x A^T) B^T. A [R, in], B [out, R], float32 views into the block.
struct Lora {
  at::Tensor A, B;
};

/// An expert is a LoRA on each of the MLP's projections.
struct Expert {
  Lora up, down;
};

struct LayerParameters {
  std::vector<Lora> attention;  ///< one for each model::Architecture::attention
  std::vector<Expert> experts;
  at::Tensor router;  ///< [E, C]; undefined where nothing is routed
};

/// Owns the block and its gradients, as the layout has it: float32, contiguous. Tensors in `layers()` are
/// autograd leaves whose values and gradients are views of the two blocks.
class Parameters {
 public:
  Parameters(const model::Architecture& architecture, const UserModel& user_model, const at::Device& device);

  /// LoRA as in docs/methods.md: A uniform in +-1/sqrt(in) (Kaiming with a = sqrt 5), B zero; routers uniform
  /// in
  /// +-1/sqrt(C). Shared parts are drawn alike by all users, own parts by `user`. Depends on the arguments
  /// alone.
  void initialise(std::uint64_t seed, std::int64_t user);

  /// Decides which leaves autograd tracks: the other phase's parameters, and factors that are not trained,
  /// get no gradient at all.
  void track(bool lora, bool routers);

  /// Every LoRA, attention first, then expert by expert; views of the block.
  [[nodiscard]] std::vector<Lora> loras() const;

  [[nodiscard]] const Layout& layout() const noexcept { return layout_; }
  [[nodiscard]] const UserModel& user_model() const noexcept { return user_model_; }
  [[nodiscard]] const std::vector<LayerParameters>& layers() const noexcept { return layers_; }
  [[nodiscard]] std::vector<LayerParameters>& layers() noexcept { return layers_; }
  [[nodiscard]] const at::Tensor& values() const noexcept { return values_; }        ///< [P]
  [[nodiscard]] const at::Tensor& gradients() const noexcept { return gradients_; }  ///< [P]

  /// Frobenius norms of gamma B A: [layer, expert, projection(up, down)], row-major, for `experts` experts
  /// (NaN beyond ours).
  [[nodiscard]] std::vector<float> update_norms(std::int64_t experts) const;

 private:
  /// Makes the leaf of the part.
  void place(const Part& part);

  UserModel user_model_;
  Layout layout_;
  at::Tensor values_, gradients_;
  std::vector<LayerParameters> layers_;
};

/// ||B A||_F of each LoRA, float64 [count] on its device, through R x R Gram matrices: tr((B^T B)(A A^T)) is
/// its square.
[[nodiscard]] at::Tensor product_norms(const std::vector<Lora>& loras);

[[nodiscard]] inline Widths widths(const Lora& lora) { return {.in = lora.A.size(1), .out = lora.B.size(0)}; }

/// The elements of a slice, as a view.
[[nodiscard]] at::Tensor view(const at::Tensor& block, const Slice& slice);

}  // namespace comigs::adapter
