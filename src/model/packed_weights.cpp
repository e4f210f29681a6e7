#include "comigs/model/packed_weights.hpp"

#include <ATen/ATen.h>

#include <map>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/model/device.hpp"

#ifdef COMIGS_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace comigs::model {

namespace {

// Where each weight begins, and after the last one where the piece ends; in bytes.
std::vector<std::int64_t> offsets(const std::vector<WeightSpec>& specs, at::ScalarType dtype) {
  constexpr std::int64_t alignment = 256;
  std::vector<std::int64_t> begins = {0};
  for (const WeightSpec& spec : specs) {
    const std::int64_t end = begins.back() + spec.count() * static_cast<std::int64_t>(elementSize(dtype));
    begins.push_back((end + alignment - 1) / alignment * alignment);
  }
  return begins;
}

at::Tensor view_of(const at::Tensor& piece, const WeightSpec& spec, std::int64_t offset,
                   at::ScalarType dtype) {
  return piece.narrow(0, offset, spec.count() * static_cast<std::int64_t>(elementSize(dtype)))
      .view(dtype)
      .view(spec.shape);
}

}  // namespace

at::Tensor pack_weights(const std::vector<WeightSpec>& specs, const WeightSource& weights,
                        at::ScalarType dtype, const at::Device& device) {
  const std::vector<std::int64_t> begins = offsets(specs, dtype);
  const at::Tensor piece = at::empty({begins.back()}, at::TensorOptions().dtype(at::kByte).device(device));
  for (std::size_t i = 0; i < specs.size(); ++i)
    view_of(piece, specs[i], begins[i], dtype).copy_(weights(specs[i]));
  return piece;
}

WeightSource packed_weights(const at::Tensor& piece, const std::vector<WeightSpec>& specs,
                            at::ScalarType dtype) {
  std::map<std::string, at::Tensor> views;
  const std::vector<std::int64_t> begins = offsets(specs, dtype);
  for (std::size_t i = 0; i < specs.size(); ++i)
    views[specs[i].name] = view_of(piece, specs[i], begins[i], dtype);
  return [views](const WeightSpec& spec) { return views.at(spec.name); };
}

#ifdef COMIGS_CUDA

namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

void tell(const std::exception& error) {
  spdlog::warn("ranks of one GPU upload a copy of the base each: {}", first_line(error));
}

}  // namespace

// "OFFSET:" and LibTorch's handle of the allocation that the piece lies in.
std::string share(const at::Tensor& piece) {
  try {
    synchronize(piece.device());
    const allocator::ShareableHandle handle = allocator::shareIpcHandle(piece.mutable_data_ptr());
    return std::to_string(handle.offset) + ":" + handle.handle;
  } catch (const std::exception& error) {
    tell(error);
    return {};
  }
}

at::Tensor open_shared(const std::string& handle, const std::vector<WeightSpec>& specs, at::ScalarType dtype,
                       const at::Device& device) {
  if (handle.empty()) return {};
  try {
    const std::size_t colon = handle.find(':');
    const std::shared_ptr<void> allocation = allocator::getIpcDevPtr(handle.substr(colon + 1));
    return at::from_blob(
        static_cast<std::byte*>(allocation.get()) + std::stoll(handle), {offsets(specs, dtype).back()},
        [allocation](void*) {}, at::TensorOptions().dtype(at::kByte).device(device), device);
  } catch (const std::exception& error) {
    tell(error);
    return {};
  }
}

#else

std::string share(const at::Tensor&) { return {}; }
at::Tensor open_shared(const std::string&, const std::vector<WeightSpec>&, at::ScalarType,
                       const at::Device&) {
  return {};
}

#endif

}  // namespace comigs::model
