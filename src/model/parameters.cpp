#include "comigs/model/parameters.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "comigs/base/random.hpp"

namespace comigs::model {

namespace {

std::int64_t lora_count(const Projection& projection, std::int64_t rank) {
  return rank * (projection.in + projection.out);
}

// Hands out consecutive views of the two blocks as autograd leaves.
class Cursor {
 public:
  Cursor(const at::Tensor& values, const at::Tensor& gradients) : values_(values), gradients_(gradients) {}

  at::Tensor take(at::IntArrayRef shape) {
    const std::int64_t count = c10::multiply_integers(shape);
    at::Tensor leaf = values_.narrow(0, offset_, count).view(shape).detach();
    leaf.set_requires_grad(true);
    leaf.mutable_grad() = gradients_.narrow(0, offset_, count).view(shape).detach();
    offset_ += count;
    return leaf;
  }

  Lora take_lora(const Projection& projection, std::int64_t rank) {
    at::Tensor A = take({rank, projection.in});
    return {.A = std::move(A), .B = take({projection.out, rank})};
  }

  [[nodiscard]] std::int64_t offset() const { return offset_; }

 private:
  const at::Tensor& values_;
  const at::Tensor& gradients_;
  std::int64_t offset_ = 0;
};

std::int64_t block_size(const Architecture& architecture, const UserModel& model) {
  if (model.gate == Gate::none) return 0;
  std::int64_t layer = model.experts * (lora_count(architecture.up, model.lora_rank) +
                                        lora_count(architecture.down, model.lora_rank));
  for (const Projection& projection : architecture.attention)
    layer += lora_count(projection, model.lora_rank);
  if (model.routed()) layer += model.experts * architecture.width;
  return architecture.layers * layer;
}

void draw(const at::Tensor& leaf, double bound, const StreamKey& key) {
  std::vector<float> numbers(static_cast<std::size_t>(leaf.numel()));
  fill_uniform(numbers, static_cast<float>(bound), key);
  leaf.detach().copy_(at::from_blob(numbers.data(), leaf.sizes(), at::kFloat));
}

void draw_lora(const Lora& lora, const StreamKey& key) {
  draw(lora.A, 1.0 / std::sqrt(static_cast<double>(lora.A.size(1))), key);
  lora.B.detach().zero_();
}

// || gamma B A ||_F through the R x R Gram matrices: |BA|^2 = tr((B^T B)(A A^T)).
double update_norm(const Lora& lora, double scale) {
  const at::Tensor A = lora.A.detach().to(at::kDouble), B = lora.B.detach().to(at::kDouble);
  const double square = (B.t().mm(B) * A.mm(A.t())).sum().item<double>();
  return scale * std::sqrt(std::max(square, 0.0));
}

}  // namespace

double UserModel::scale() const { return lora_alpha / std::sqrt(static_cast<double>(lora_rank)); }

at::Tensor view(const at::Tensor& block, const Slice& slice) {
  return block.narrow(0, slice.offset, slice.count);
}

Parameters::Parameters(const Architecture& architecture, const UserModel& user_model,
                       const at::Device& device)
    : user_model_(user_model), layers_(static_cast<std::size_t>(architecture.layers)) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  values_ = at::zeros({block_size(architecture, user_model)}, options);
  gradients_ = at::zeros_like(values_);
  if (user_model.gate == Gate::none) return;
  Cursor cursor(values_, gradients_);
  for (LayerParameters& layer : layers_)
    for (const Projection& projection : architecture.attention)
      layer.attention.push_back(cursor.take_lora(projection, user_model.lora_rank));
  attention_ = {0, cursor.offset()};
  for (std::int64_t expert = 0; expert < user_model.experts; ++expert) {
    const std::int64_t begin = cursor.offset();
    for (LayerParameters& layer : layers_) {
      Lora up = cursor.take_lora(architecture.up, user_model.lora_rank);
      layer.experts.push_back(
          {.up = std::move(up), .down = cursor.take_lora(architecture.down, user_model.lora_rank)});
    }
    experts_.push_back({begin, cursor.offset() - begin});
  }
  const std::int64_t begin = cursor.offset();
  if (user_model.routed())
    for (LayerParameters& layer : layers_)
      layer.router = cursor.take({user_model.experts, architecture.width});
  routers_ = {begin, cursor.offset() - begin};
}

void Parameters::initialise(std::uint64_t seed, std::int64_t user) {
  const auto own = static_cast<std::uint32_t>(user);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const auto layer = static_cast<std::uint32_t>(l);
    // `step` numbers the factor inside the layer: attention sites from 0, expert e's pair from 256 (e + 1).
    StreamKey key{.seed = seed,
                  .user = user_model_.shared_attention ? shared_user : own,
                  .stream = Stream::lora_init,
                  .round = layer,
                  .step = 0};
    for (const Lora& lora : layers_[l].attention) {
      draw_lora(lora, key);
      ++key.step;
    }
    for (std::size_t e = 0; e < layers_[l].experts.size(); ++e) {
      key.user = static_cast<std::int64_t>(e) < user_model_.generalists ? shared_user : own;
      key.step = 256 * static_cast<std::uint32_t>(e + 1);
      draw_lora(layers_[l].experts[e].up, key);
      ++key.step;
      draw_lora(layers_[l].experts[e].down, key);
    }
    if (layers_[l].router.defined())
      draw(layers_[l].router, 1.0 / std::sqrt(static_cast<double>(layers_[l].router.size(1))),
           {.seed = seed, .user = own, .stream = Stream::router_init, .round = layer, .step = 0});
  }
}

void Parameters::track(bool lora, bool routers) {
  const auto set = [](Lora& factors, bool tracked) {
    factors.A.set_requires_grad(tracked);
    factors.B.set_requires_grad(tracked);
  };
  for (LayerParameters& layer : layers_) {
    for (Lora& factors : layer.attention) set(factors, lora);
    for (Expert& expert : layer.experts) {
      set(expert.up, lora);
      set(expert.down, lora);
    }
    if (layer.router.defined()) layer.router.set_requires_grad(routers);
  }
}

std::vector<float> Parameters::update_norms(std::int64_t experts) const {
  std::vector<float> norms;
  for (const LayerParameters& layer : layers_) {
    for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) {
      const bool held = e < layer.experts.size();
      const double nothing = std::numeric_limits<double>::quiet_NaN();
      norms.push_back(
          static_cast<float>(held ? update_norm(layer.experts[e].up, user_model_.scale()) : nothing));
      norms.push_back(
          static_cast<float>(held ? update_norm(layer.experts[e].down, user_model_.scale()) : nothing));
    }
  }
  return norms;
}

std::vector<FactorView> expert_factors(const Architecture& architecture, const UserModel& user_model,
                                       const float* experts) {
  std::vector<FactorView> factors;
  for (std::int64_t expert = 0; expert < user_model.experts; ++expert) {
    for (std::int64_t layer = 0; layer < architecture.layers; ++layer) {
      const auto add = [&](const char* name, std::int64_t rows, std::int64_t columns,
                           const char* row_dimension, const char* column_dimension) {
        factors.push_back({.layer = layer,
                           .expert = expert,
                           .name = name,
                           .rows = rows,
                           .columns = columns,
                           .data = experts,
                           .row_dimension = row_dimension,
                           .column_dimension = column_dimension});
        experts += rows * columns;
      };
      add("up_A", user_model.lora_rank, architecture.up.in, "lora_rank", "width");
      add("up_B", architecture.up.out, user_model.lora_rank, "inner_width", "lora_rank");
      add("down_A", user_model.lora_rank, architecture.down.in, "lora_rank", "inner_width");
      add("down_B", architecture.down.out, user_model.lora_rank, "width", "lora_rank");
    }
  }
  return factors;
}

}  // namespace comigs::model
