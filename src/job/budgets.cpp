#include "comigs/job/budgets.hpp"

#include "comigs/adapter/flops.hpp"
#include "comigs/adapter/footprint.hpp"
#include "comigs/adapter/kind.hpp"
#include "comigs/base/error.hpp"
#include "comigs/job/micro_batches.hpp"

namespace comigs::job {

namespace {

// A user whose number of experts is looked for.
class Search {
 public:
  Search(const federation::Method& method, const config::Config& config,
         const model::Architecture& architecture, std::size_t user)
      : method_(method), architecture_(architecture), own_(config.users[user]), user_(user) {
    const bool cuda = config.run.device == config::DeviceChoice::cuda;
    config::Run run = config.run;
    if (!cuda && run.activations == config::Activations::automatic)  // whatever this machine is fast in
      run.activations = config::Activations::float32;
    computation_ = computation(run, c10::Device(cuda ? c10::DeviceType::CUDA : c10::DeviceType::CPU));
    // Wherever it runs, the number of experts is the same: that of the device that takes more memory.
    most_demanding_ = computation_;
    most_demanding_.on_gpu = config.run.device != config::DeviceChoice::cpu;
  }

  [[nodiscard]] std::int64_t most() const {
    std::int64_t found = least();
    const std::int64_t sequences = sequences_with(found);
    check_steps(found);
    while (found < most_automatic_experts && fits_memory(found + 1, sequences) && fits_steps(found + 1))
      ++found;
    return found;
  }

 private:
  [[nodiscard]] std::int64_t least() const {
    return method_.experts_shared == federation::Sharing::chosen
               ? static_cast<std::int64_t>(own_.generalists.size())
               : 1;
  }

  [[nodiscard]] adapter::UserModel with(std::int64_t experts) const {
    config::User user = own_;
    user.experts = experts;
    return federation::user_models(method_, {user}).front();
  }

  // A micro-batch as the user would have it with so few experts.
  [[nodiscard]] std::int64_t sequences_with(std::int64_t experts) const {
    return sequences_within_memory(own_, user_, architecture_, with(experts), computation_);
  }

  [[nodiscard]] bool fits_memory(std::int64_t experts, std::int64_t sequences) const {
    if (own_.memory == 0.0) return true;
    const adapter::Footprint taken = adapter::footprint(architecture_, with(experts), most_demanding_,
                                                        sequences * own_.context_tokens, sequences);
    return static_cast<double>(taken.total()) <= own_.memory * gib;
  }

  [[nodiscard]] double step(std::int64_t experts) const {
    const auto flops = [&](std::int64_t count) {
      return adapter::flops(architecture_, with(count), adapter::Pass::experts, own_.context_tokens,
                            own_.context_tokens);
    };
    return flops(experts) / flops(1);
  }

  [[nodiscard]] bool fits_steps(std::int64_t experts) const {
    return own_.step_budget == 0.0 || step(experts) <= own_.step_budget;
  }

  void check_steps(std::int64_t experts) const {
    if (!fits_steps(experts))
      throw ConfigError(fmt::format(
          "[user.{}] step_budget = {}: a step with an expert for each of its {} generalists takes "
          "{:.4f} times the FLOPs of one with a single expert",
          user_, own_.step_budget, experts, step(experts)));
  }

  const federation::Method& method_;
  const model::Architecture& architecture_;
  const config::User& own_;
  std::size_t user_;
  model::Computation computation_, most_demanding_;
};

}  // namespace

void settle_experts(const federation::Method& method, config::Config& config,
                    const model::Architecture& architecture) {
  for (std::size_t user = 0; user < config.users.size(); ++user) {
    config::User& own = config.users[user];
    if (own.experts != config::automatic_experts) continue;
    if (method.experts)
      throw ConfigError(
          fmt::format("[user.{}] experts = auto: method '{}' has {} for every user; 'comigs-1gxs' takes any "
                      "number",
                      user, method.name, *method.experts));
    if (!method.adapter.chosen_by_budget)
      throw ConfigError(fmt::format(
          "[user.{}] experts = auto: the number of those that method '{}' trains is told; expected a number",
          user, method.name));
    if (own.memory == 0.0 && own.step_budget == 0.0)
      throw ConfigError(fmt::format(
          "[user.{}] experts = auto: found no budget to choose by; give memory (GiB), step_budget "
          "(FLOPs of a step, those with one expert being 1), or both",
          user));
    own.experts = Search(method, config, architecture, user).most();
  }
}

}  // namespace comigs::job
