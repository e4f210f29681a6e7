#include "comigs/adapter/layout.hpp"

#include <algorithm>
#include <stdexcept>

#include "comigs/adapter/kind.hpp"

namespace comigs::adapter {

namespace {

using Tag = Part::Tag;

const char* name_of(Role role) {
  switch (role) {
    case Role::attention:
      return "attention";
    case Role::expert:
      return "expert";
    case Role::router:
      return "router";
  }
  return "";
}

ParameterView named(const Part& part) {
  ParameterView view;
  view.role = name_of(part.role);
  view.layer = part.layer;
  view.expert = part.role == Role::expert ? part.expert : -1;
  view.name = part.name + (part.tag == Tag::A ? "_A" : part.tag == Tag::B ? "_B" : "");
  view.rows = part.rows;
  view.columns = part.columns;
  view.row_dimension = part.rows_are;
  view.column_dimension = part.columns_are;
  return view;
}

}  // namespace

std::uint32_t draw_of_expert(const UserModel& user_model, std::int64_t expert) {
  const auto e = static_cast<std::size_t>(expert);
  const std::int64_t number = e < user_model.generalists.size() ? user_model.generalists[e] : expert;
  return 256 * static_cast<std::uint32_t>(number + 1);
}

bool Select::includes(const Part& part) const {
  const bool is_factor = factors == Factors::both || part.tag == (factors == Factors::A ? Tag::A : Tag::B);
  return std::ranges::find(roles, part.role) != roles.end() && (!expert || part.expert == *expert) &&
         is_factor;
}

Layout::Layout(const model::Architecture& architecture, const UserModel& user_model)
    : trained_(user_model.trained) {
  if (user_model.gate == Gate::none) return;
  parts_ = user_model.kind->parts(architecture, user_model);
  projections_ = static_cast<std::int64_t>(user_model.kind->projections(architecture).size());
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

std::vector<Widths> Layout::loras(const Select& select) const {
  std::vector<Widths> all;
  for (const Part& part : parts_)
    if (part.tag == Tag::A && select.includes(part)) all.push_back({.in = part.columns, .out = 0});
  auto lora = all.begin();
  for (const Part& part : parts_)
    if (part.tag == Tag::B && select.includes(part)) (lora++)->out = part.rows;
  return all;
}

std::vector<ParameterView> stored_parameters(const model::Architecture& architecture,
                                             const UserModel& user_model, const float* block) {
  std::vector<ParameterView> views;
  const Layout layout(architecture, user_model);
  for (const Part& part : layout.parts()) {
    views.push_back(named(part));
    views.back().data = block + part.offset;
  }
  return views;
}

}  // namespace comigs::adapter
