#include "comigs/adapter/layout.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace comigs::adapter {

namespace {

using Tag = Part::Tag;

// A [R, in] or B [out, R] of each of the projections, layer by layer.
void add_factor(std::vector<Part>& parts, const model::Architecture& architecture,
                const std::vector<model::Projection>& projections, std::int64_t rank, Part part) {
  for (part.layer = 0; part.layer < architecture.layers; ++part.layer) {
    for (std::size_t site = 0; site < projections.size(); ++site) {
      const bool is_A = part.tag == Tag::A;
      part.site = static_cast<std::int64_t>(site);
      part.rows = is_A ? rank : projections[site].out;
      part.columns = is_A ? projections[site].in : rank;
      parts.push_back(part);
    }
  }
}

ParameterView named(const model::Architecture& architecture, const Part& part) {
  ParameterView view;
  view.layer = part.layer;
  view.rows = part.rows;
  view.columns = part.columns;
  if (part.role == Role::router) {
    view.role = "router";
    view.name = "weight";
    view.row_dimension = "expert";
    view.column_dimension = "width";
    return view;
  }
  const bool is_expert = part.role == Role::expert, is_A = part.tag == Tag::A;
  const auto site = static_cast<std::size_t>(part.site);
  view.role = is_expert ? "expert" : "attention";
  view.expert = is_expert ? part.expert : -1;
  view.name =
      (is_expert ? (site == 0 ? "up" : "down") : architecture.attention[site].name) + (is_A ? "_A" : "_B");
  const auto dimension = [&](std::int64_t length) {
    return length == architecture.width ? "width" : length == architecture.inner ? "inner_width" : "";
  };
  view.row_dimension = is_A ? "lora_rank" : dimension(part.rows);
  view.column_dimension = is_A ? dimension(part.columns) : "lora_rank";
  return view;
}

std::vector<Part> all_parts(const model::Architecture& architecture, const UserModel& user_model) {
  std::vector<Part> parts;
  if (user_model.gate == Gate::none) return parts;
  const auto add_role = [&](Role role, std::int64_t expert,
                            const std::vector<model::Projection>& projections) {
    for (const Tag tag : {Tag::A, Tag::B})
      add_factor(parts, architecture, projections, user_model.lora_rank,
                 {.role = role, .tag = tag, .expert = expert});
  };
  add_role(Role::attention, 0, architecture.attention);
  for (std::int64_t expert = 0; expert < user_model.experts; ++expert)
    add_role(Role::expert, expert, {architecture.up, architecture.down});
  if (!user_model.routed()) return parts;
  for (std::int64_t layer = 0; layer < architecture.layers; ++layer)
    parts.push_back({.role = Role::router,
                     .tag = Tag::router,
                     .layer = layer,
                     .rows = user_model.experts,
                     .columns = architecture.width});
  return parts;
}

}  // namespace

double UserModel::scale() const { return lora_alpha / std::sqrt(static_cast<double>(lora_rank)); }

bool Select::includes(const Part& part) const {
  const bool is_factor = factors == Factors::both || part.tag == (factors == Factors::A ? Tag::A : Tag::B);
  return std::ranges::find(roles, part.role) != roles.end() && (!expert || part.expert == *expert) &&
         is_factor;
}

Layout::Layout(const model::Architecture& architecture, const UserModel& user_model)
    : parts_(all_parts(architecture, user_model)), trained_(user_model.trained) {
  for (Part& part : parts_) {
    part.offset = size_;
    size_ += part.count();
  }
}

std::vector<Slice> Layout::slices(const Select& select) const {
  std::vector<Slice> found;
  for (const Part& part : parts_) {
    if (!select.includes(part)) continue;
    if (!found.empty() && found.back().offset + found.back().count == part.offset) {
      found.back().count += part.count();
    } else {
      found.push_back({part.offset, part.count()});
    }
  }
  return found;
}

Slice Layout::slice(const Select& select) const {
  const std::vector<Slice> found = slices(select);
  if (found.size() > 1) throw std::invalid_argument("what is selected of a user's block is not in one piece");
  return found.empty() ? Slice{size_, 0} : found.front();
}

std::vector<Widths> Layout::loras() const {
  std::vector<Widths> all;
  for (std::size_t i = 0; i < parts_.size(); ++i)
    if (parts_[i].tag == Tag::A) all.push_back({.in = parts_[i].columns, .out = 0});
  auto lora = all.begin();
  for (const Part& part : parts_)
    if (part.tag == Tag::B) (lora++)->out = part.rows;
  return all;
}

std::vector<ParameterView> stored_parameters(const model::Architecture& architecture,
                                             const UserModel& user_model, const float* block) {
  std::vector<ParameterView> views;
  const Layout layout(architecture, user_model);
  for (const Part& part : layout.parts()) {
    views.push_back(named(architecture, part));
    views.back().data = block + part.offset;
  }
  return views;
}

}  // namespace comigs::adapter
