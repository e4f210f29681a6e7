#include "comigs/run/pretrain_checkpoint.hpp"

#include <ATen/ATen.h>

#include <array>
#include <cstring>
#include <span>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/safetensors.hpp"

namespace comigs::run {

namespace {

namespace fs = std::filesystem;

constexpr const char* position_name = "position";

template <class Number>
std::span<const std::byte> bytes_of(const Number* numbers, std::size_t count) {
  return std::as_bytes(std::span(numbers, count));
}

std::span<const std::byte> bytes_of(const at::Tensor& host) {
  return bytes_of(host.data_ptr<float>(), static_cast<std::size_t>(host.numel()));
}

// Of all that the file holds, in the order in which it is given.
std::string digest_of(const std::string& recipe, const std::vector<io::NamedTensor>& tensors) {
  std::string digests = recipe;
  for (const io::NamedTensor& tensor : tensors) digests += tensor.name + sha256(tensor.tensor.bytes);
  return sha256(digests);
}

std::string entry(const io::SafetensorsFile& file, const std::string& name) {
  const auto found = file.metadata().find(name);
  return found == file.metadata().end() ? std::string() : found->second;
}

}  // namespace

PretrainCheckpoint::PretrainCheckpoint(const fs::path& folder, std::string recipe)
    : path_(path_in(folder)), recipe_(std::move(recipe)) {}

fs::path PretrainCheckpoint::path_in(const fs::path& folder) {
  return folder / "comigs_pretrain.safetensors";
}

bool PretrainCheckpoint::exists() const { return fs::exists(fs::symlink_status(path_)); }

void PretrainCheckpoint::write(const Position& position, const Blocks& blocks) const {
  const std::array<double, 2> numbers = {static_cast<double>(position.steps), position.loss};
  std::vector<at::Tensor> hosts;  // keeps what the tensors view
  std::vector<io::NamedTensor> tensors = {
      {position_name, {io::Dtype::float64, {2}, bytes_of(numbers.data(), numbers.size())}}};
  for (const auto& [name, block] : blocks) {
    hosts.push_back(block.to(at::kCPU));
    tensors.push_back({name, {io::Dtype::float32, {block.numel()}, bytes_of(hosts.back())}});
  }
  io::write_safetensors(path_, tensors, {{"recipe", recipe_}, {"sha256", digest_of(recipe_, tensors)}});
}

PretrainCheckpoint::Position PretrainCheckpoint::read(const Blocks& blocks) const {
  const auto wrong = [&](const char* what) {
    return DataError(fmt::format("{}: {}; without it the command begins again", path_.string(), what));
  };
  const io::SafetensorsFile file(path_);
  if (entry(file, "recipe") != recipe_) throw wrong("a checkpoint of other options or data");
  const auto expect = [&](const std::string& name, io::Dtype dtype, std::int64_t length) {
    const io::TensorView& view = file.at(name, std::array{length});
    if (view.dtype != dtype || !view.is_aligned()) throw wrong("no checkpoint of this program");
    return io::NamedTensor{name, view};
  };
  std::vector<io::NamedTensor> tensors = {expect(position_name, io::Dtype::float64, 2)};
  for (const auto& [name, block] : blocks) tensors.push_back(expect(name, io::Dtype::float32, block.numel()));
  if (entry(file, "sha256") != digest_of(recipe_, tensors)) throw wrong("damaged; its digest is another one");
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const at::Tensor host = at::empty_like(blocks[i].second, at::TensorOptions().device(at::kCPU));
    std::memcpy(host.data_ptr<float>(), tensors[i + 1].tensor.data(), tensors[i + 1].tensor.bytes.size());
    blocks[i].second.copy_(host);
  }
  std::array<double, 2> numbers{};
  std::memcpy(numbers.data(), tensors[0].tensor.data(), sizeof numbers);
  return {.steps = static_cast<std::int64_t>(numbers[0]), .loss = numbers[1]};
}

void PretrainCheckpoint::remove() const {
  std::error_code ignored;  // what stays is of no use, and does no harm
  fs::remove(path_, ignored);
}

}  // namespace comigs::run
