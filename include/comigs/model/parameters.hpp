// All trainable numbers of a user: one flat block, ordered by who shares them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comigs/base/records.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::model {

/// How a token's experts are weighted.
enum class Gate {
  none,   ///< no experts: the base model as it is
  equal,  ///< 1/n for each
  top_k,  ///< softmax over the k largest logits of the router
};

/// What a user's trainable part looks like.
struct UserModel {
  std::int64_t experts = 2;      ///< in every MLP block; 0: nothing is trained
  std::int64_t generalists = 1;  ///< experts 0 .. generalists - 1 are shared with other users
  std::int64_t lora_rank = 8;    ///< R
  double lora_alpha = 16.0;
  std::int64_t top_k = 2;
  Gate gate = Gate::top_k;
  bool shared_attention = true;

  /// gamma = alpha / sqrt(R), rank-stabilised (Eq. 5).
  [[nodiscard]] double scale() const;
  [[nodiscard]] bool routed() const { return gate == Gate::top_k && experts > 1; }
};

/// A range of the block, in elements.
struct Slice {
  std::int64_t offset = 0, count = 0;
};

/// A LoRA: x -> gamma (x A^T) B^T. A [R, in], B [out, R], float32 views into the block.
struct Lora {
  at::Tensor A, B;
};

/// An expert is a LoRA on each of the MLP's projections.
struct Expert {
  Lora up, down;
};

struct LayerParameters {
  std::vector<Lora> attention;  ///< one for each Architecture::attention
  std::vector<Expert> experts;
  at::Tensor router;  ///< [E, C]; undefined where nothing is routed
};

/// Owns the block and its gradients: [attention | expert 0 | expert 1 | ... | routers], float32, contiguous,
/// each role's part layer by layer. Experts that users share come first, so shared slices look alike for
/// users with different numbers of experts. Tensors in `layers()` are autograd leaves whose values and
/// gradients are views of the two blocks.
class Parameters {
 public:
  Parameters(const Architecture& architecture, const UserModel& user_model, const at::Device& device);

  /// LoRA as in methods.md: A uniform in +-1/sqrt(in) (Kaiming with a = sqrt 5), B zero; routers uniform in
  /// +-1/sqrt(C). Shared parts are drawn alike by all users, own parts by `user`. Depends on the arguments
  /// alone.
  void initialise(std::uint64_t seed, std::int64_t user);

  /// Decides which leaves autograd tracks: the other phase's parameters get no gradient at all.
  void track(bool lora, bool routers);

  [[nodiscard]] const UserModel& user_model() const noexcept { return user_model_; }
  [[nodiscard]] const std::vector<LayerParameters>& layers() const noexcept { return layers_; }
  [[nodiscard]] std::vector<LayerParameters>& layers() noexcept { return layers_; }
  [[nodiscard]] const at::Tensor& values() const noexcept { return values_; }        ///< [P]
  [[nodiscard]] const at::Tensor& gradients() const noexcept { return gradients_; }  ///< [P]

  [[nodiscard]] Slice all() const { return {0, values_.numel()}; }
  [[nodiscard]] Slice attention() const { return attention_; }
  [[nodiscard]] Slice expert(std::int64_t index) const {
    return experts_.at(static_cast<std::size_t>(index));
  }
  [[nodiscard]] Slice experts() const { return {attention_.count, routers_.offset - attention_.count}; }
  [[nodiscard]] Slice lora() const { return {0, routers_.offset}; }  ///< attention and all experts
  [[nodiscard]] Slice routers() const { return routers_; }

  /// Frobenius norms of gamma B A: [layer, expert, projection(up, down)], row-major, for `experts` experts
  /// (NaN beyond ours).
  [[nodiscard]] std::vector<float> update_norms(std::int64_t experts) const;

 private:
  UserModel user_model_;
  at::Tensor values_, gradients_;
  std::vector<LayerParameters> layers_;
  Slice attention_, routers_;
  std::vector<Slice> experts_;
};

/// The LoRA factors that lie in a host copy of a user's expert slices (all experts, one after the other),
/// named for storage.
[[nodiscard]] std::vector<FactorView> expert_factors(const Architecture& architecture,
                                                     const UserModel& user_model, const float* experts);

/// The elements of a slice, as a view.
[[nodiscard]] at::Tensor view(const at::Tensor& block, const Slice& slice);

}  // namespace comigs::model
