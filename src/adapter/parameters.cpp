#include "comigs/adapter/parameters.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "comigs/base/random.hpp"

namespace comigs::adapter {

namespace {

void draw(const at::Tensor& leaf, double bound, const StreamKey& key) {
  std::vector<float> numbers(static_cast<std::size_t>(leaf.numel()));
  fill_uniform(numbers, static_cast<float>(bound), key);
  leaf.detach().copy_(at::from_blob(numbers.data(), leaf.sizes(), at::kFloat));
}

void draw_lora(const Lora& lora, const StreamKey& key) {
  draw(lora.A, 1.0 / std::sqrt(static_cast<double>(lora.A.size(1))), key);
  lora.B.detach().zero_();
}

}  // namespace

at::Tensor view(const at::Tensor& block, const Slice& slice) {
  return block.narrow(0, slice.offset, slice.count);
}

Parameters::Parameters(const model::Architecture& architecture, const UserModel& user_model,
                       const at::Device& device)
    : user_model_(user_model),
      layout_(architecture, user_model),
      values_(at::zeros({layout_.size()}, at::TensorOptions().dtype(at::kFloat).device(device))),
      gradients_(at::zeros_like(values_)),
      layers_(static_cast<std::size_t>(architecture.layers)) {
  if (layout_.size() > 0) {
    for (LayerParameters& layer : layers_) {
      layer.attention.resize(architecture.attention.size());
      layer.experts.resize(static_cast<std::size_t>(user_model.experts));
    }
  }
  for (const Part& part : layout_.parts()) place(part);
}

void Parameters::place(const Part& part) {
  const auto view_in = [&](const at::Tensor& block) {
    return view(block, {part.offset, part.count()}).view({part.rows, part.columns}).detach();
  };
  at::Tensor leaf = view_in(values_);
  leaf.set_requires_grad(true);
  leaf.mutable_grad() = view_in(gradients_);
  LayerParameters& layer = layers_[static_cast<std::size_t>(part.layer)];
  if (part.role == Role::router) {
    layer.router = std::move(leaf);
    return;
  }
  const auto site = static_cast<std::size_t>(part.site), expert = static_cast<std::size_t>(part.expert);
  Lora& lora = part.role == Role::attention ? layer.attention[site]
               : site == 0                  ? layer.experts[expert].up
                                            : layer.experts[expert].down;
  (part.tag == Part::Tag::A ? lora.A : lora.B) = std::move(leaf);
}

void Parameters::initialise(std::uint64_t seed, std::int64_t user) {
  const auto own = static_cast<std::uint32_t>(user);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const auto layer = static_cast<std::uint32_t>(l);
    // `step` numbers the factor inside the layer: attention sites from 0, expert e's pair from 256 (e + 1), a
    // generalist's by its number in the run.
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
      const bool shared = e < user_model_.generalists.size();
      const std::int64_t number = shared ? user_model_.generalists[e] : static_cast<std::int64_t>(e);
      key.user = shared ? shared_user : own;
      key.step = 256 * static_cast<std::uint32_t>(number + 1);
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
  for (const Lora& factors : loras()) {
    factors.A.set_requires_grad(lora && user_model_.trained != Factors::B);
    factors.B.set_requires_grad(lora && user_model_.trained != Factors::A);
  }
  for (LayerParameters& layer : layers_)
    if (layer.router.defined()) layer.router.set_requires_grad(routers);
}

std::vector<Lora> Parameters::loras() const {
  std::vector<Lora> all;
  for (const LayerParameters& layer : layers_)
    all.insert(all.end(), layer.attention.begin(), layer.attention.end());
  for (std::size_t e = 0; !layers_.empty() && e < layers_.front().experts.size(); ++e)
    for (const LayerParameters& layer : layers_)
      all.insert(all.end(), {layer.experts[e].up, layer.experts[e].down});
  return all;
}

std::vector<float> Parameters::update_norms(std::int64_t experts) const {
  const auto nothing = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> norms(layers_.size() * static_cast<std::size_t>(experts) * 2, nothing);
  std::vector<Lora> pairs;
  for (const LayerParameters& layer : layers_)
    for (const Expert& expert : layer.experts) pairs.insert(pairs.end(), {expert.up, expert.down});
  if (pairs.empty()) return norms;
  const at::Tensor found = (product_norms(pairs) * user_model_.scale()).to(at::kCPU, at::kFloat);
  const auto held = static_cast<std::size_t>(user_model_.experts) * 2;
  for (std::size_t layer = 0; layer < layers_.size(); ++layer)
    std::copy_n(found.const_data_ptr<float>() + layer * held, held,
                norms.begin() + static_cast<std::ptrdiff_t>(layer * static_cast<std::size_t>(experts) * 2));
  return norms;
}

at::Tensor product_norms(const std::vector<Lora>& loras) {
  std::vector<at::Tensor> squares;
  for (const Lora& lora : loras) {
    const at::Tensor A = lora.A.detach().to(at::kDouble), B = lora.B.detach().to(at::kDouble);
    squares.push_back((B.t().mm(B) * A.mm(A.t())).sum());
  }
  return at::stack(squares).clamp_min(0.0).sqrt();
}

}  // namespace comigs::adapter
