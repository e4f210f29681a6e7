#include "comigs/io/safetensors.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/io/atomic_file.hpp"
#include "safetensors_header.hpp"

namespace comigs::io {
namespace {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  std::size_t size_bytes;
};

constexpr std::array dtype_table{DtypeRow{Dtype::boolean, "BOOL", 1},
                                 DtypeRow{Dtype::uint8, "U8", 1},
                                 DtypeRow{Dtype::int8, "I8", 1},
                                 DtypeRow{Dtype::float8_e5m2, "F8_E5M2", 1},
                                 DtypeRow{Dtype::float8_e4m3, "F8_E4M3", 1},
                                 DtypeRow{Dtype::int16, "I16", 2},
                                 DtypeRow{Dtype::uint16, "U16", 2},
                                 DtypeRow{Dtype::float16, "F16", 2},
                                 DtypeRow{Dtype::bfloat16, "BF16", 2},
                                 DtypeRow{Dtype::int32, "I32", 4},
                                 DtypeRow{Dtype::uint32, "U32", 4},
                                 DtypeRow{Dtype::float32, "F32", 4},
                                 DtypeRow{Dtype::int64, "I64", 8},
                                 DtypeRow{Dtype::uint64, "U64", 8},
                                 DtypeRow{Dtype::float64, "F64", 8}};

const DtypeRow& row_of(Dtype dtype) { return dtype_table.at(static_cast<std::size_t>(dtype)); }

constexpr std::size_t data_alignment_bytes = 64;
constexpr std::size_t names_shown = 8;

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string names_text(const SafetensorsFile::Tensors& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (names.size() == names_shown) {
      names.emplace_back("...");
      break;
    }
    names.push_back(printable(name));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::vector<const NamedTensor*> in_file_order(std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) {
    order.push_back(&tensor);
  }
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const auto size_a = element_size_bytes(a->tensor.dtype), size_b = element_size_bytes(b->tensor.dtype);
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });
  return order;
}

std::string header_for(const std::vector<const NamedTensor*>& order,
                       const SafetensorsFile::Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) {
    header["__metadata__"] = metadata;
  }
  std::uint64_t offset = 0;
  for (const NamedTensor* named : order) {
    const TensorView& tensor = named->tensor;
    if (tensor.bytes.size() != count_bytes(tensor.shape, tensor.dtype)) {
      throw std::invalid_argument(fmt::format(
          "tensor '{}' has {} bytes; shape {} of {} needs {}", named->name, tensor.bytes.size(),
          shape_text(tensor.shape), name_of(tensor.dtype), count_bytes(tensor.shape, tensor.dtype)));
    }
    if (named->name == "__metadata__" || header.contains(named->name)) {
      throw std::invalid_argument(fmt::format("the tensor name '{}' is reserved or used twice", named->name));
    }
    header[named->name] = {{"dtype", name_of(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  const std::size_t past = (length_field_bytes + text.size()) % data_alignment_bytes;
  text.append(past == 0 ? 0 : data_alignment_bytes - past, ' ');
  return text;
}

}  // namespace

std::string_view name_of(Dtype dtype) { return row_of(dtype).name; }

std::size_t element_size_bytes(Dtype dtype) { return row_of(dtype).size_bytes; }

bool dtype_from_name(std::string_view name, Dtype& dtype) {
  const auto found = std::find_if(dtype_table.begin(), dtype_table.end(),
                                  [&](const DtypeRow& row) { return row.name == name; });
  if (found == dtype_table.end()) {
    return false;
  }
  dtype = found->dtype;
  return true;
}

std::string known_dtypes() {
  std::vector<std::string_view> names;
  for (const DtypeRow& row : dtype_table) {
    names.push_back(row.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::int64_t TensorView::elements() const { return count_elements(shape); }

bool TensorView::is_aligned() const {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % element_size_bytes(dtype) == 0;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : mapping_(std::make_shared<const MappedFile>(path)) {
  SafetensorsHeader header = parse_header(mapping_->bytes(), path.string());
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const TensorView* const tensor = find(name);
  if (tensor == nullptr) {
    throw DataError(fmt::format("'{}' has no tensor '{}'; it has {}: {}", mapping_->path().string(), name,
                                tensors_.size(), names_text(tensors_)));
  }
  return *tensor;
}

const TensorView& SafetensorsFile::at(std::string_view name, std::span<const std::int64_t> shape) const {
  const TensorView& tensor = at(name);
  if (!std::ranges::equal(tensor.shape, shape)) {
    throw DataError(fmt::format("'{}': tensor '{}' has shape {}; {} was expected", mapping_->path().string(),
                                name, shape_text(tensor.shape), shape_text(shape)));
  }
  return tensor;
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const SafetensorsFile::Metadata& metadata) {
  const std::vector<const NamedTensor*> order = in_file_order(tensors);
  const std::string header = header_for(order, metadata);
  const std::uint64_t length = header.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const NamedTensor* named : order) {
    file.write(named->tensor.bytes);
  }
  file.commit();
}

}  // namespace comigs::io
