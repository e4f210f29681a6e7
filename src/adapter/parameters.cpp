#include "comigs/adapter/parameters.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "comigs/base/random.hpp"
#include "comigs/base/sha256.hpp"

namespace comigs::adapter {

namespace {

void draw(const at::Tensor& leaf, double bound, const StreamKey& key) {
  std::vector<float> numbers(static_cast<std::size_t>(leaf.numel()));
  fill_uniform(numbers, static_cast<float>(bound), key);
  leaf.detach().copy_(at::from_blob(numbers.data(), leaf.sizes(), at::kFloat));
}

}  // namespace

std::uint32_t drawn_by(const Part& part, const UserModel& user_model, std::uint32_t user) {
  const auto is_shared = [&] {
    switch (part.role) {
      case Role::attention:
        return user_model.shared_attention;
      case Role::expert:
        return part.expert < static_cast<std::int64_t>(user_model.generalists.size());
      case Role::router:
        return user_model.shared_routers;
    }
    return false;
  };
  return is_shared() ? shared_user : user;
}

at::Tensor view(const at::Tensor& block, const Slice& slice) {
  return block.narrow(0, slice.offset, slice.count);
}

Parameters::Parameters(const model::Architecture& architecture, const UserModel& user_model,
                       const at::Device& device)
    : user_model_(user_model),
      layout_(architecture, user_model),
      layers_(architecture.layers),
      values_(at::zeros({layout_.size()}, at::TensorOptions().dtype(at::kFloat).device(device))),
      gradients_(at::zeros_like(values_)) {
  for (const Part& part : layout_.parts()) {
    const auto view_in = [&](const at::Tensor& block) {
      return view(block, {part.offset, part.count()}).view({part.rows, part.columns}).detach();
    };
    leaves_.push_back(view_in(values_));
    leaves_.back().set_requires_grad(true);
    leaves_.back().mutable_grad() = view_in(gradients_);
  }
}

void Parameters::initialise(std::uint64_t seed, std::int64_t user) {
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const Part& part = layout_.parts()[i];
    if (part.bound == 0.0) {
      leaves_[i].detach().zero_();
      continue;
    }
    draw(leaves_[i], part.bound,
         {.seed = seed,
          .user = drawn_by(part, user_model_, static_cast<std::uint32_t>(user)),
          .stream = part.role == Role::router ? Stream::router_init : Stream::adapter_init,
          .round = static_cast<std::uint32_t>(part.layer),
          .step = part.draw});
  }
}

void Parameters::track(bool adapters, bool routers) {
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const Part& part = layout_.parts()[i];
    const bool kept = (part.tag == Part::Tag::A && user_model_.trained == Factors::B) ||
                      (part.tag == Part::Tag::B && user_model_.trained == Factors::A);
    leaves_[i].set_requires_grad(part.role == Role::router ? routers : adapters && !kept);
  }
}

std::vector<Lora> Parameters::loras(const Select& select) const {
  std::vector<at::Tensor> factors[2];
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const Part& part = layout_.parts()[i];
    if (part.tag != Part::Tag::whole && select.includes(part))
      factors[part.tag == Part::Tag::A ? 0 : 1].push_back(leaves_[i]);
  }
  std::vector<Lora> all;
  for (std::size_t l = 0; l < factors[0].size(); ++l) all.push_back({.A = factors[0][l], .B = factors[1][l]});
  return all;
}

std::string Parameters::digest() const {
  const at::Tensor values = values_.to(at::kCPU);
  const std::span numbers(values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel()));
  return sha256(std::as_bytes(numbers));
}

std::vector<float> Parameters::update_norms(std::int64_t experts) const {
  const auto place_of = [&](const Part& part) {
    return static_cast<std::size_t>((part.layer * experts + part.expert) * layout_.projections() + part.site);
  };
  std::vector<std::size_t> places;
  std::vector<at::Tensor> norms;
  const std::vector<Lora> pairs = loras();
  for (std::size_t i = 0, pair = 0; i < leaves_.size(); ++i) {
    const Part& part = layout_.parts()[i];
    const std::size_t number = part.tag == Part::Tag::A ? pair++ : 0;
    if (part.role != Role::expert || part.tag == Part::Tag::B) continue;
    places.push_back(place_of(part));
    norms.push_back(part.tag == Part::Tag::A ? product_norms({pairs[number]})[0] * user_model_.scale()
                                             : leaves_[i].detach().to(at::kDouble).norm());
  }
  std::vector<float> table(static_cast<std::size_t>(layers_ * experts * layout_.projections()),
                           std::numeric_limits<float>::quiet_NaN());
  if (norms.empty()) return table;
  const at::Tensor found = at::stack(norms).to(at::kCPU, at::kFloat);
  for (std::size_t i = 0; i < places.size(); ++i) table[places[i]] = found.const_data_ptr<float>()[i];
  return table;
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
