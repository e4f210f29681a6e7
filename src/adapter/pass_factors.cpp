#include "pass_factors.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <iterator>
#include <span>

namespace comigs::adapter {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The parts that differ in their layer alone lie at equal distances in the block.
struct Piece {
  Part first;
  std::int64_t distance = 0;
  bool tracked = false;

  // [L, rows, columns]
  [[nodiscard]] at::Tensor in(const at::Tensor& block, std::int64_t layers) const {
    return block.as_strided({layers, first.rows, first.columns}, {distance, first.columns, 1}, first.offset);
  }
};

std::vector<Piece> pieces(const Parameters& parameters) {
  const auto same = [](const Part& one, const Part& other) {
    return one.role == other.role && one.tag == other.tag && one.expert == other.expert &&
           one.site == other.site;
  };
  std::vector<Piece> all;
  for (std::size_t i = 0; i < parameters.leaves().size(); ++i) {
    const Part& part = parameters.layout().parts()[i];
    if (part.layer == 0)
      all.push_back({.first = part, .tracked = parameters.leaves()[i].requires_grad()});
    else if (part.layer == 1)
      for (Piece& piece : all)
        if (same(piece.first, part)) piece.distance = part.offset - piece.first.offset;
  }
  return all;
}

// Pieces of one shape that products read together: [L, ...], in which they stand one behind the other along
// `dimension`, or, joined, lie in that dimension, one after the other.
struct Group {
  std::vector<Piece> members;
  std::int64_t dimension = 1;
  bool joined = false, transposed = false;
  at::ScalarType type = at::kFloat;
  double scale = 1.0;  // of what is laid out, and so of the gradients that come back

  [[nodiscard]] bool tracked() const {
    return std::ranges::any_of(members, [](const Piece& piece) { return piece.tracked; });
  }
  [[nodiscard]] at::Tensor of(const Piece& piece, const at::Tensor& block, std::int64_t layers) const {
    const at::Tensor view = piece.in(block, layers);
    return transposed ? view.transpose(1, 2) : view;
  }
  [[nodiscard]] at::Tensor laid_out(const at::Tensor& values, std::int64_t layers) const {
    std::vector<at::Tensor> views;
    for (const Piece& piece : members) views.push_back(of(piece, values, layers));
    at::Tensor all;
    if (views.size() > 1) {
      all = at::stack(views, dimension);
      if (joined) all = all.flatten(dimension, dimension + 1);
    } else {  // as it lies, but for the order of its numbers
      all = transposed ? views.front().contiguous() : views.front();
      if (!joined) all = all.unsqueeze(dimension);
    }
    // Multiplied in float32, or in what is wider.
    const at::Tensor wide = model::in_precision(all, c10::promoteTypes(all.scalar_type(), type));
    return model::in_precision(scale == 1.0 ? wide : wide * scale, type);
  }
  // Adds what is in `laid`, laid out so, where its members lie.
  void add(const at::Tensor& laid, const at::Tensor& gradients, std::int64_t layers) const {
    const at::Tensor apart = joined ? laid.unflatten(dimension, {std::ssize(members), -1}) : laid;
    for (std::size_t m = 0; m < members.size(); ++m)
      of(members[m], gradients, layers).add_(apart.select(dimension, static_cast<std::int64_t>(m)), scale);
  }
};

struct Plan : torch::CustomClassHolder {
  std::vector<Group> groups;
  std::int64_t layers = 0;
  at::Tensor values, gradients;

  // Of each group, layer by layer.
  [[nodiscard]] variable_list laid_out() const {
    variable_list all;
    for (const Group& group : groups)
      for (const at::Tensor& layer : group.laid_out(values, layers).unbind(0)) all.push_back(layer);
    return all;
  }
};

class LayOutFunction : public torch::autograd::Function<LayOutFunction> {
 public:
  // `tracked`, a number that nobody reads, makes autograd come by in the backward pass.
  static variable_list forward(AutogradContext* context, const at::Tensor& /*tracked*/,
                               const c10::intrusive_ptr<Plan>& plan) {
    variable_list all = plan->laid_out(), kept;
    for (std::size_t i = 0; i < all.size(); ++i)
      if (!plan->groups[i / static_cast<std::size_t>(plan->layers)].tracked()) kept.push_back(all[i]);
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    context->mark_non_differentiable(kept);
    context->set_materialize_grads(false);
    return all;
  }
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const auto capsule = context->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const Plan&>(*capsule);
    const auto L = static_cast<std::size_t>(plan.layers);
    for (std::size_t g = 0; g < plan.groups.size(); ++g) {
      const auto of_layers = std::span(outputs).subspan(g * L, L);
      // Where the loss is not of the top layer's output, its factors have none.
      const auto some = std::ranges::find_if(of_layers, &at::Tensor::defined);
      if (!plan.groups[g].tracked() || some == of_layers.end()) continue;
      for (at::Tensor& layer : of_layers)
        if (!layer.defined()) layer = at::zeros_like(*some);
      plan.groups[g].add(at::stack(variable_list(of_layers.begin(), of_layers.end())), plan.gradients,
                         plan.layers);
    }
    return variable_list(2);
  }
};

// The groups in their order: A and B of each site of attention, then the experts'.
c10::intrusive_ptr<Plan> plan_of(const Parameters& parameters, at::ScalarType activations) {
  const UserModel& user_model = parameters.user_model();
  const std::vector<Piece> all = pieces(parameters);
  const std::int64_t ups = parameters.layout().projections() - 1;
  const auto chosen = [&](auto is_wanted) {
    std::vector<Piece> found;
    std::ranges::copy_if(all, std::back_inserter(found),
                         [&](const Piece& piece) { return is_wanted(piece.first); });
    // Projection by projection, each with all experts.
    std::ranges::stable_sort(found, {}, [](const Piece& piece) { return piece.first.site; });
    return found;
  };
  auto plan = c10::make_intrusive<Plan>();
  plan->layers = parameters.layers();
  plan->values = parameters.values();
  plan->gradients = parameters.gradients();
  using enum Part::Tag;
  for (const Piece& piece : chosen([](const Part& part) { return part.role == Role::attention; }))
    plan->groups.push_back({.members = {piece},
                            .joined = true,
                            .type = activations,
                            .scale = piece.first.tag == A ? user_model.attention_scale() : 1.0});
  const auto experts = [&](bool up, Part::Tag tag) {
    return chosen([&](const Part& part) {
      return part.role == Role::expert && part.tag == tag && (part.site < ups) == up;
    });
  };
  plan->groups.push_back(
      {.members = experts(true, A), .joined = true, .type = activations, .scale = user_model.scale()});
  plan->groups.push_back({.members = experts(true, B), .transposed = true});
  plan->groups.push_back({.members = experts(false, A)});
  plan->groups.push_back({.members = experts(false, B),
                          .dimension = 2,
                          .joined = true,
                          .type = activations,
                          .scale = user_model.scale()});
  return plan;
}

}  // namespace

std::vector<LayerFactors> pass_factors(const Parameters& parameters, at::ScalarType activations) {
  const auto plan = plan_of(parameters, activations);
  const bool tracked = at::GradMode::is_enabled() && std::ranges::any_of(plan->groups, &Group::tracked);
  const variable_list all =
      tracked
          ? LayOutFunction::apply(at::empty({0}, parameters.values().options()).set_requires_grad(true), plan)
          : plan->laid_out();
  const auto L = static_cast<std::size_t>(plan->layers), sites = plan->groups.size() / 2 - 2;
  std::vector<LayerFactors> layers(L);
  for (std::size_t l = 0; l < L; ++l) {
    const auto of_group = [&](std::size_t group) { return all[group * L + l]; };
    for (std::size_t site = 0; site < sites; ++site)
      layers[l].attention.push_back({.A = of_group(2 * site), .B = of_group(2 * site + 1)});
    layers[l].experts = {.up_A = of_group(2 * sites),
                         .up_B = of_group(2 * sites + 1),
                         .down_A = of_group(2 * sites + 2),
                         .down_B = of_group(2 * sites + 3)};
  }
  return layers;
}

}  // namespace comigs::adapter
