// Tensors in safetensors files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comigs/io/mapped_file.hpp"

namespace comigs::io {

enum class Dtype {
  boolean,
  uint8,
  int8,
  float8_e5m2,
  float8_e4m3,
  int16,
  uint16,
  float16,
  bfloat16,
  int32,
  uint32,
  float32,
  int64,
  uint64,
  float64
};

[[nodiscard]] std::string_view name_of(Dtype dtype);  ///< as in the format: "F32", "BF16", ...
[[nodiscard]] std::size_t element_size_bytes(Dtype dtype);

/// A view of one tensor, row-major and little-endian; valid while the file's mapping is held.
struct TensorView {
  Dtype dtype = Dtype::float32;
  std::vector<std::int64_t> shape;  ///< empty: a scalar
  std::span<const std::byte> bytes;

  [[nodiscard]] const std::byte* data() const noexcept { return bytes.data(); }
  [[nodiscard]] std::int64_t elements() const;
  [[nodiscard]] bool is_aligned()
      const;  ///< to its element size; a file made by others may have it otherwise
};

/// A mapped safetensors file whose header was checked in full, so that every view lies inside the file.
/// Throws DataError with the file, what was found and what was expected. Nothing of the tensors is read or
/// copied.
class SafetensorsFile {
 public:
  using Tensors = std::map<std::string, TensorView, std::less<>>;
  using Metadata = std::map<std::string, std::string>;

  explicit SafetensorsFile(const std::filesystem::path& path);

  [[nodiscard]] const Tensors& tensors() const noexcept { return tensors_; }
  [[nodiscard]] const Metadata& metadata() const noexcept { return metadata_; }
  [[nodiscard]] const TensorView* find(std::string_view name) const;  ///< nullptr: no such tensor
  /// Throws DataError where the tensor is absent (it lists those there are) or, given a shape, has another
  /// one.
  [[nodiscard]] const TensorView& at(std::string_view name) const;
  [[nodiscard]] const TensorView& at(std::string_view name, std::span<const std::int64_t> shape) const;
  /// Who keeps a view longer than this object keeps this.
  [[nodiscard]] std::shared_ptr<const MappedFile> mapping() const noexcept { return mapping_; }

 private:
  std::shared_ptr<const MappedFile> mapping_;
  Tensors tensors_;
  Metadata metadata_;
};

/// A tensor to be written; `bytes` must hold shape x element size, in memory that the caller keeps.
struct NamedTensor {
  std::string name;
  TensorView tensor;
};

/// Writes the file atomically, without a second copy of the data; the data start at a multiple of 64 bytes,
/// wider elements first, so that all are aligned. Throws std::invalid_argument where a tensor contradicts
/// itself, IoError.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const SafetensorsFile::Metadata& metadata = {{"format", "pt"}});

}  // namespace comigs::io
