#include "stored_weights.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "weight_files.hpp"

namespace comigs::model {

namespace {

constexpr std::size_t names_shown = 3;

// Of one weight, the likeliest first.
std::vector<std::string> names_of(const WeightSpec& spec) {
  std::vector<std::string> names;
  for (const std::string& name : {spec.name, spec.alternative}) {
    if (name.empty()) continue;
    if (!spec.prefix.empty()) names.push_back(spec.prefix + name);
    names.push_back(name);
  }
  return names;
}

}  // namespace

std::string StoredWeights::Stored::place() const {
  return fmt::format("{}: '{}'", file->path().string(), printable(name));
}

at::ScalarType StoredWeights::Stored::type() const {
  switch (view.dtype) {
    case io::Dtype::float32:
      return at::kFloat;
    case io::Dtype::bfloat16:
      return at::kBFloat16;
    case io::Dtype::float16:
      return at::kHalf;
    default:
      throw DataError(fmt::format("{}: a weight of type {}, expected F32, BF16 or F16", place(),
                                  io::name_of(view.dtype)));
  }
}

at::Tensor StoredWeights::Stored::tensor() const {
  const auto options = at::TensorOptions().dtype(type());
  // Files of older writers may have their tensors anywhere; arithmetic wants them aligned.
  if (!view.is_aligned()) {
    const at::Tensor copy = at::empty(view.shape, options);
    std::memcpy(copy.data_ptr(), view.data(), view.bytes.size());
    return copy;
  }
  // LibTorch has no tensors of const: nothing writes to frozen weights, and the mapping's pages are
  // read-only.
  void* data = const_cast<std::byte*>(view.data());
  return at::from_blob(
      data, view.shape, [file = file](void*) {}, options);
}

StoredWeights::StoredWeights(const std::filesystem::path& folder) {
  const WeightFiles found = find_weight_files(folder);
  entry_ = found.entry;
  for (const std::filesystem::path& file : found.files) add(file);
  for (const auto& [tensor, shard] : found.promised) {
    const auto stored = tensors_.find(tensor);
    if (stored == tensors_.end() || stored->second.file->path() != folder / shard)
      throw DataError(fmt::format("{}: '{}' is missing, which {} promises", (folder / shard).string(),
                                  printable(tensor), entry_.string()));
  }
}

void StoredWeights::add(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  for (const auto& [name, view] : file.tensors()) {
    const Stored stored{.name = name, .view = view, .file = file.mapping()};
    const auto [before, is_new] = tensors_.emplace(name, stored);
    if (!is_new)
      throw DataError(fmt::format("{} is there twice, expected once; the other is {}", stored.place(),
                                  before->second.place()));
  }
}

bool StoredWeights::differ(const WeightSpec& one, const WeightSpec& other) const {
  const Stored *const a = look_for(one), *const b = look_for(other);
  if (a == nullptr || b == nullptr) return false;
  if (a->view.shape != b->view.shape) return true;
  if (a->view.dtype == b->view.dtype) return !at::equal(a->tensor(), b->tensor());
  return !at::equal(a->tensor().to(at::kFloat), b->tensor().to(at::kFloat));
}

void StoredWeights::check(const std::vector<WeightSpec>& specs,
                          bool (*is_no_weight)(std::string_view)) const {
  std::set<std::string> known;
  for (const WeightSpec& spec : specs) {
    for (const std::string& name : names_of(spec)) known.insert(name);
    const auto plain = tensors_.find(spec.name), prefixed = tensors_.find(spec.prefix + spec.name);
    if (plain != prefixed && plain != tensors_.end() && prefixed != tensors_.end())
      throw DataError(fmt::format("{} is there twice, expected once; the other is {}", plain->second.place(),
                                  prefixed->second.place()));
  }
  const std::string& prefix = specs.front().prefix;
  std::vector<std::string> others;
  for (const auto& [name, stored] : tensors_)
    if (!known.contains(name) &&
        !is_no_weight(std::string_view(name).substr(name.starts_with(prefix) ? prefix.size() : 0)))
      others.push_back(printable(stored.name));
  if (!others.empty()) {
    const std::size_t count = others.size();
    others.resize(std::min(count, names_shown));
    throw DataError(fmt::format(
        "{}: {} that a model of this config.json does not have: '{}'{}; they would be left out of what is "
        "computed",
        entry_.string(), count == 1 ? "a tensor" : fmt::format("{} tensors", count),
        fmt::join(others, "', '"), count > names_shown ? ", ..." : ""));
  }
  for (const WeightSpec& spec : specs) (void)checked(spec).type();
}

const StoredWeights::Stored* StoredWeights::look_for(const WeightSpec& spec) const {
  for (const std::string& name : names_of(spec))
    if (const auto found = tensors_.find(name); found != tensors_.end()) return &found->second;
  return nullptr;
}

const StoredWeights::Stored& StoredWeights::find(const WeightSpec& spec) const {
  if (const Stored* const found = look_for(spec)) return *found;
  throw DataError(fmt::format("{}: the tensor '{}' is missing", entry_.string(), spec.name));
}

bool StoredWeights::is_usable_as(const WeightSpec& spec, at::ScalarType dtype) const {
  const Stored& stored = find(spec);
  return stored.type() == dtype && stored.view.is_aligned();
}

const StoredWeights::Stored& StoredWeights::checked(const WeightSpec& spec) const {
  const Stored& stored = find(spec);
  if (stored.view.shape != spec.shape)
    throw DataError(fmt::format("{}: '{}' has shape [{}], expected [{}] from config.json",
                                stored.file->path().string(), spec.name, fmt::join(stored.view.shape, ", "),
                                fmt::join(spec.shape, ", ")));
  return stored;
}

at::Tensor StoredWeights::get(const WeightSpec& spec) const { return checked(spec).tensor(); }

std::string StoredWeights::place_of(const WeightSpec& spec) const { return find(spec).place(); }

}  // namespace comigs::model
