// The tensors of a Hugging Face folder as they lie in its files.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "comigs/io/safetensors.hpp"
#include "comigs/model/architecture.hpp"

namespace comigs::model {

/// Maps the files; tensors that it gives keep theirs. A weight is found with or without its prefix, and by
/// its other name. All functions throw DataError naming the file, the tensor, what was found and what was
/// expected.
class StoredWeights {
 public:
  explicit StoredWeights(const std::filesystem::path& folder);

  [[nodiscard]] bool has(const WeightSpec& spec) const { return look_for(spec) != nullptr; }
  /// Both are there and differ in shape or in a number.
  [[nodiscard]] bool differ(const WeightSpec& one, const WeightSpec& other) const;
  /// Throws where a weight is missing or of another shape or type, or where there is a tensor that is none
  /// of them and that `is_no_weight` does not know.
  void check(const std::vector<WeightSpec>& specs, bool (*is_no_weight)(std::string_view)) const;

  /// Whether the weight lies in `dtype` and aligned to its elements.
  [[nodiscard]] bool is_usable_as(const WeightSpec& spec, at::ScalarType dtype) const;
  /// The weight as it is stored: a read-only view of its file, or a copy where it is not aligned.
  [[nodiscard]] at::Tensor get(const WeightSpec& spec) const;
  /// "FILE: 'TENSOR'", for messages.
  [[nodiscard]] std::string place_of(const WeightSpec& spec) const;
  /// The file that stands for all of them, for messages.
  [[nodiscard]] const std::filesystem::path& entry() const noexcept { return entry_; }

 private:
  struct Stored {
    std::string name;  // in the file
    io::TensorView view;
    std::shared_ptr<const io::MappedFile> file;

    [[nodiscard]] std::string place() const;
    [[nodiscard]] at::ScalarType type() const;
    [[nodiscard]] at::Tensor tensor() const;
  };

  void add(const std::filesystem::path& path);
  [[nodiscard]] const Stored* look_for(const WeightSpec& spec) const;
  [[nodiscard]] const Stored& find(const WeightSpec& spec) const;
  [[nodiscard]] const Stored& checked(const WeightSpec& spec) const;  // of the right shape

  std::filesystem::path entry_;
  std::map<std::string, Stored> tensors_;  // by their names in the files
};

}  // namespace comigs::model
