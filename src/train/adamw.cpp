#include "comigs/train/adamw.hpp"

#include <ATen/ATen.h>

#include "comigs/kernels/adamw.hpp"
#include "comigs/model/device.hpp"

namespace comigs::train {

Adamw::Adamw(const at::Tensor& values, const at::Tensor& gradients, const AdamwConstants& constants)
    : values_(values),
      gradients_(gradients),
      first_moments_(at::zeros_like(values)),
      second_moments_(at::zeros_like(values)),
      constants_(constants) {}

at::Tensor Adamw::second_moment_sum() const { return second_moments_.sum(); }

void Adamw::step(const model::Slice& slice, double learning_rate, std::int64_t step_number,
                 double weight_decay) {
  const kernels::AdamwSlice part{.values = values_.data_ptr<float>() + slice.offset,
                                 .gradients = gradients_.data_ptr<float>() + slice.offset,
                                 .first_moments = first_moments_.data_ptr<float>() + slice.offset,
                                 .second_moments = second_moments_.data_ptr<float>() + slice.offset,
                                 .count = static_cast<std::size_t>(slice.count)};
  const kernels::AdamwStep step = kernels::adamw_step(learning_rate, constants_.beta1, constants_.beta2,
                                                      constants_.epsilon, weight_decay, step_number);
  if (values_.is_cuda()) {
    kernels::adamw_device(part, step, model::current_stream(values_.device()));
  } else {
    kernels::adamw_host(part, step);
  }
}

}  // namespace comigs::train
