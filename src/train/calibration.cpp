#include "comigs/train/calibration.hpp"
#include "comigs/adapter/forward.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "comigs/adapter/flops.hpp"
#include "comigs/base/log.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "comigs/model/device.hpp"

namespace comigs::train {

namespace {

constexpr double seconds_of_a_pass = 1.5;
constexpr int passes = 3;

// One user's model on random tokens.
class Trial {
 public:
  Trial(const model::BaseModel& base, const adapter::UserModel& user_model, std::int64_t context)
      : base_(base), parameters_(base.architecture(), user_model, base.head().device()), context_(context) {
    parameters_.initialise(0, 0);
    parameters_.track(true, false);
  }

  // Of the fastest of a few passes: others were held up.
  [[nodiscard]] double flops_a_second(adapter::Pass pass, std::int64_t most_sequences) const {
    // What is made once; what one sequence takes tells how many are worth while.
    (void)seconds(pass, 1);
    const double one = seconds(pass, 1);
    const auto affordable = static_cast<std::int64_t>(std::max(1.0, std::floor(seconds_of_a_pass / one)));
    const std::int64_t sequences = std::min(most_sequences, affordable);
    double best = sequences == 1 ? one : seconds(pass, sequences);
    for (int repeat = 1; repeat < passes; ++repeat) best = std::min(best, seconds(pass, sequences));
    return adapter::flops(base_.architecture(), parameters_.user_model(), pass, sequences * context_,
                          context_) /
           best;
  }

 private:
  [[nodiscard]] double seconds(adapter::Pass pass, std::int64_t sequences) const {
    const at::Device device = base_.head().device();
    const at::Tensor tokens =
        at::randint(base_.architecture().vocabulary, {sequences, context_}, at::kLong).to(device);
    model::synchronize(device);
    const Stopwatch watch;
    if (pass == adapter::Pass::evaluation) {
      const at::NoGradGuard no_gradients;
      (void)model::cross_entropy_of_tokens(adapter::forward(base_, tokens, parameters_).hidden, base_.head(),
                                           tokens.view(-1));
    } else {
      model::cross_entropy(adapter::forward(base_, tokens, parameters_).hidden, base_.head(), tokens.view(-1))
          .backward();
    }
    model::synchronize(device);
    return watch.seconds();
  }

  const model::BaseModel& base_;
  adapter::Parameters parameters_;
  std::int64_t context_;
};

}  // namespace

Speed measure_speed(const model::BaseModel& base, const adapter::UserModel& user_model,
                    std::int64_t sequences, std::int64_t context) {
  const Trial trial(base, user_model, context);
  const double evaluation = trial.flops_a_second(adapter::Pass::evaluation, sequences);
  return {.steps = user_model.gate == adapter::Gate::none
                       ? evaluation
                       : trial.flops_a_second(adapter::Pass::experts, sequences),
          .evaluation = evaluation};
}

}  // namespace comigs::train
