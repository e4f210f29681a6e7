// Where each trainable tensor of a user lies in its block: numbers alone.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comigs/adapter/user_model.hpp"
#include "comigs/base/records.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::adapter {

/// A range of the block, in elements.
struct Slice {
  std::int64_t offset = 0, count = 0;
};

enum class Role { attention, expert, router };

/// One trainable tensor: a factor of a LoRA, or one that stands alone. The factors of a LoRA have role,
/// layer, expert and site in common.
struct Part {
  enum class Tag { A, B, whole };
  Role role = Role::attention;
  Tag tag = Tag::whole;
  std::int64_t layer = 0;
  std::int64_t expert = 0;  ///< of Role::expert
  std::int64_t site = 0;    ///< index in Architecture::attention, or among AdapterKind::projections
  std::string name = {};    ///< of the site
  std::int64_t rows = 0, columns = 0;
  std::string rows_are = {}, columns_are = {};  ///< names of these dimensions in storage; empty: of its own
  double bound = 0.0;                           ///< drawn uniform in +- so much; 0: begins as zero
  std::uint32_t draw = 0;                       ///< tells apart what is drawn for a layer
  std::int64_t offset = 0;                      ///< in the block, row-major from there

  [[nodiscard]] std::int64_t count() const { return rows * columns; }
};

/// `Part::draw` of an expert's first part. A generalist is drawn by its number in the run, so that all who
/// share it have the same.
[[nodiscard]] std::uint32_t draw_of_expert(const UserModel& user_model, std::int64_t expert);

/// Which parts are meant.
struct Select {
  std::vector<Role> roles;
  std::optional<std::int64_t> expert = std::nullopt;
  Factors factors = Factors::both;

  [[nodiscard]] bool includes(const Part& part) const;
};

namespace select {
[[nodiscard]] inline Select attention(Factors factors = Factors::both) {
  return {.roles = {Role::attention}, .factors = factors};
}
[[nodiscard]] inline Select expert(std::int64_t index, Factors factors = Factors::both) {
  return {.roles = {Role::expert}, .expert = index, .factors = factors};
}
[[nodiscard]] inline Select experts() { return {.roles = {Role::expert}}; }
/// Attention and all experts.
[[nodiscard]] inline Select factors(Factors factors = Factors::both) {
  return {.roles = {Role::attention, Role::expert}, .factors = factors};
}
[[nodiscard]] inline Select routers() { return {.roles = {Role::router}}; }
}  // namespace select

/// The widths of the projection that a LoRA stands beside: A [R, in], B [out, R].
struct Widths {
  std::int64_t in = 0, out = 0;
};

/// The block, in the order that the user's kind of adapter gives its parts.
class Layout {
 public:
  Layout(const model::Architecture& architecture, const UserModel& user_model);

  [[nodiscard]] std::span<const Part> parts() const noexcept { return parts_; }
  /// Elements of the block.
  [[nodiscard]] std::int64_t size() const noexcept { return size_; }
  /// What is selected, neighbours joined.
  [[nodiscard]] std::vector<Slice> slices(const Select& select) const;
  /// The same where it is one piece; an empty one at the end of the block where there is no such part. Throws
  /// std::invalid_argument where it is in several.
  [[nodiscard]] Slice slice(const Select& select) const;
  /// What expert steps train.
  [[nodiscard]] std::vector<Slice> trained() const { return slices(select::factors(trained_)); }
  /// Of every LoRA that is selected by role, in the order of Parameters::loras.
  [[nodiscard]] std::vector<Widths> loras(const Select& select = select::factors()) const;
  /// How many parts an expert has in a layer, a LoRA being one.
  [[nodiscard]] std::int64_t projections() const noexcept { return projections_; }

 private:
  std::vector<Part> parts_;
  std::int64_t size_ = 0;
  std::int64_t projections_ = 0;
  Factors trained_;
};

/// The parts named for storage, over a host copy of the block.
[[nodiscard]] std::vector<ParameterView> stored_parameters(const model::Architecture& architecture,
                                                           const UserModel& user_model, const float* block);

}  // namespace comigs::adapter
