#include "comigs/train/adamw.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "comigs/kernels/adamw.hpp"
#include "comigs/model/device.hpp"

namespace comigs::train {

Adamw::Adamw(const at::Tensor& values, const at::Tensor& gradients, const AdamwConstants& constants)
    : values_(values),
      gradients_(gradients),
      first_moments_(at::zeros_like(values)),
      second_moments_(at::zeros_like(values)),
      constants_(constants) {}

void Adamw::step(const adapter::Slice& slice, double learning_rate, std::int64_t step_number,
                 double weight_decay) {
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t offset = slice.offset + begin;
    return kernels::AdamwSlice{.values = values_.data_ptr<float>() + offset,
                               .gradients = gradients_.data_ptr<float>() + offset,
                               .first_moments = first_moments_.data_ptr<float>() + offset,
                               .second_moments = second_moments_.data_ptr<float>() + offset,
                               .count = static_cast<std::size_t>(end - begin)};
  };
  const kernels::AdamwStep step = kernels::adamw_step(learning_rate, constants_.beta1, constants_.beta2,
                                                      constants_.epsilon, weight_decay, step_number);
  if (values_.is_cuda()) {
    kernels::adamw_device(part(0, slice.count), step, model::current_stream(values_.device()));
  } else {
    constexpr std::int64_t least_elements = 1 << 14;
    at::parallel_for(0, slice.count, least_elements, [&](std::int64_t begin, std::int64_t end) {
      kernels::adamw_host(part(begin, end), step);
    });
  }
}

}  // namespace comigs::train
