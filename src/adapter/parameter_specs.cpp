#include "comigs/adapter/parameter_specs.hpp"

#include "comigs/adapter/parameters.hpp"

namespace comigs::adapter {

namespace {

using Role = ParameterSpec::Role;
using Factor = ParameterSpec::Factor;

// A [R, in] or B [out, R] of each of the projections, layer by layer.
void add_factor(std::vector<ParameterSpec>& specs, const model::Architecture& architecture,
                const std::vector<model::Projection>& projections, std::int64_t rank, ParameterSpec spec) {
  for (spec.layer = 0; spec.layer < architecture.layers; ++spec.layer) {
    for (std::size_t site = 0; site < projections.size(); ++site) {
      const bool is_A = spec.factor == Factor::A;
      spec.site = static_cast<std::int64_t>(site);
      spec.rows = is_A ? rank : projections[site].out;
      spec.columns = is_A ? projections[site].in : rank;
      specs.push_back(spec);
    }
  }
}

ParameterView named(const model::Architecture& architecture, const ParameterSpec& spec) {
  ParameterView view;
  view.layer = spec.layer;
  view.rows = spec.rows;
  view.columns = spec.columns;
  if (spec.role == Role::router) {
    view.role = "router";
    view.name = "weight";
    view.row_dimension = "expert";
    view.column_dimension = "width";
    return view;
  }
  const bool is_expert = spec.role == Role::expert, is_A = spec.factor == Factor::A;
  const auto site = static_cast<std::size_t>(spec.site);
  view.role = is_expert ? "expert" : "attention";
  view.expert = is_expert ? spec.expert : -1;
  view.name =
      (is_expert ? (site == 0 ? "up" : "down") : architecture.attention[site].name) + (is_A ? "_A" : "_B");
  const auto dimension = [&](std::int64_t length) {
    return length == architecture.width ? "width" : length == architecture.inner ? "inner_width" : "";
  };
  view.row_dimension = is_A ? "lora_rank" : dimension(spec.rows);
  view.column_dimension = is_A ? dimension(spec.columns) : "lora_rank";
  return view;
}

}  // namespace

std::vector<ParameterSpec> parameter_specs(const model::Architecture& architecture,
                                           const UserModel& user_model) {
  std::vector<ParameterSpec> specs;
  if (user_model.gate == Gate::none) return specs;
  const auto add_role = [&](Role role, std::int64_t expert,
                            const std::vector<model::Projection>& projections) {
    for (const Factor factor : {Factor::A, Factor::B})
      add_factor(specs, architecture, projections, user_model.lora_rank,
                 {.role = role, .factor = factor, .expert = expert});
  };
  add_role(Role::attention, 0, architecture.attention);
  for (std::int64_t expert = 0; expert < user_model.experts; ++expert)
    add_role(Role::expert, expert, {architecture.up, architecture.down});
  if (!user_model.routed()) return specs;
  for (std::int64_t layer = 0; layer < architecture.layers; ++layer)
    specs.push_back({.role = Role::router,
                     .factor = Factor::router,
                     .layer = layer,
                     .rows = user_model.experts,
                     .columns = architecture.width});
  return specs;
}

std::vector<ParameterView> stored_parameters(const model::Architecture& architecture,
                                             const UserModel& user_model, const float* block) {
  std::vector<ParameterView> views;
  for (const ParameterSpec& spec : parameter_specs(architecture, user_model)) {
    views.push_back(named(architecture, spec));
    views.back().data = block;
    block += spec.count();
  }
  return views;
}

}  // namespace comigs::adapter
