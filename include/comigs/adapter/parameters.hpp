// All trainable numbers of a user: one flat block, ordered by who shares them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comigs/adapter/parameter_specs.hpp"

namespace comigs::adapter {

/// How a token's experts are weighted.
enum class Gate {
  none,   ///< no experts: the base model as it is
  equal,  ///< 1/n for each
  top_k,  ///< softmax over the k largest logits of the router; for k = 1 see LayerRouting::gate
};

/// Both factors of every LoRA, or one of them.
enum class Factors { both, A, B };

/// What a user's trainable part looks like.
struct UserModel {
  std::int64_t experts = 2;  ///< in every MLP block; 0: nothing is trained
  /// Which of the run's generalists the first experts are, rising; the other experts are the user's own.
  std::vector<std::int64_t> generalists = {0};
  std::int64_t lora_rank = 8;  ///< R
  double lora_alpha = 16.0;
  std::int64_t top_k = 2;
  Gate gate = Gate::top_k;
  bool shared_attention = true;
  Factors trained = Factors::both;  ///< the rest stays as drawn
  Factors shared = Factors::both;   ///< of what is shared; the rest is the user's own

  /// gamma = alpha / sqrt(R), rank-stabilised (Eq. 5).
  [[nodiscard]] double scale() const;
  [[nodiscard]] bool routed() const { return gate == Gate::top_k && experts > 1; }
  /// Not where a token has one expert of several: that one's weight is its probability.
  [[nodiscard]] bool gates_sum_to_one() const { return !routed() || top_k > 1; }
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
  std::vector<Lora> attention;  ///< one for each model::Architecture::attention
  std::vector<Expert> experts;
  at::Tensor router;  ///< [E, C]; undefined where nothing is routed
};

/// Owns the block and its gradients: [attention | expert 0 | expert 1 | ... | routers], float32, contiguous;
/// attention and each expert are [A of every layer | B of every layer]. Experts that users share come first,
/// so shared slices look alike for users with different numbers of experts. Tensors in `layers()` are
/// autograd leaves whose values and gradients are views of the two blocks.
class Parameters {
 public:
  Parameters(const model::Architecture& architecture, const UserModel& user_model, const at::Device& device);

  /// LoRA as in docs/methods.md: A uniform in +-1/sqrt(in) (Kaiming with a = sqrt 5), B zero; routers uniform in
  /// +-1/sqrt(C). Shared parts are drawn alike by all users, own parts by `user`. Depends on the arguments
  /// alone.
  void initialise(std::uint64_t seed, std::int64_t user);

  /// Decides which leaves autograd tracks: the other phase's parameters, and factors that are not trained,
  /// get no gradient at all.
  void track(bool lora, bool routers);

  /// Every LoRA, attention first, then expert by expert; views of the block.
  [[nodiscard]] std::vector<Lora> loras() const;
  /// How many of the R ranks are in use; the others are zero in A and B (HetLoRA's pruning).
  [[nodiscard]] std::int64_t rank_in_use() const noexcept { return rank_in_use_; }
  /// Sets the ranks from `rank` on to zero; 1 <= rank <= R.
  void restrict_rank(std::int64_t rank);

  [[nodiscard]] const UserModel& user_model() const noexcept { return user_model_; }
  [[nodiscard]] const std::vector<LayerParameters>& layers() const noexcept { return layers_; }
  [[nodiscard]] std::vector<LayerParameters>& layers() noexcept { return layers_; }
  [[nodiscard]] const at::Tensor& values() const noexcept { return values_; }        ///< [P]
  [[nodiscard]] const at::Tensor& gradients() const noexcept { return gradients_; }  ///< [P]

  [[nodiscard]] Slice attention(Factors factors = Factors::both) const { return attention_.of(factors); }
  [[nodiscard]] Slice expert(std::int64_t index, Factors factors = Factors::both) const {
    return experts_.at(static_cast<std::size_t>(index)).of(factors);
  }
  [[nodiscard]] Slice experts() const {
    const std::int64_t begin = attention().count;
    return {begin, routers_.offset - begin};
  }
  [[nodiscard]] Slice lora() const { return {0, routers_.offset}; }  ///< attention and all experts
  [[nodiscard]] Slice routers() const { return routers_; }
  /// The parts of `lora()` that are trained.
  [[nodiscard]] std::vector<Slice> trained_lora() const;

  /// Frobenius norms of gamma B A: [layer, expert, projection(up, down)], row-major, for `experts` experts
  /// (NaN beyond ours).
  [[nodiscard]] std::vector<float> update_norms(std::int64_t experts) const;

 private:
  /// The factors of one role: all A, then all B.
  struct Role {
    Slice A, B;
    [[nodiscard]] Slice of(Factors factors) const;
  };
  /// Makes the leaf that lies at `offset`.
  void place(const ParameterSpec& spec, std::int64_t offset);

  UserModel user_model_;
  std::int64_t rank_in_use_;
  at::Tensor values_, gradients_;
  std::vector<LayerParameters> layers_;
  Role attention_;
  std::vector<Role> experts_;
  Slice routers_;
};

/// ||B A||_F of each LoRA, float64 [count] on its device, through R x R Gram matrices: tr((B^T B)(A A^T)) is
/// its square.
[[nodiscard]] at::Tensor product_norms(const std::vector<Lora>& loras);

/// The elements of a slice, as a view.
[[nodiscard]] at::Tensor view(const at::Tensor& block, const Slice& slice);

}  // namespace comigs::adapter
