// What a step in bfloat16 asks of a GPU, seen at LibTorch's dispatcher on the host: how the operands of its
// products lie in memory, and how many operations there are.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <boost/test/unit_test.hpp>

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "comigs/adapter/forward.hpp"
#include "comigs/adapter/losses.hpp"
#include "comigs/model/base_model.hpp"
#include "comigs/model/cross_entropy.hpp"
#include "support/random_parameters.hpp"
#include "support/tiny_base.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

constexpr std::int64_t B = 4, T = 16, C = 128, heads = 2, V = 1009;  // n = 64, F = 512

bool is_product(std::string_view name) {
  return name == "aten::mm" || name == "aten::addmm" || name == "aten::addmm_" || name == "aten::bmm" ||
         name == "aten::baddbmm";
}

// Tensor cores' fast ways want rows (or columns, of a transposed matrix) that begin at multiples of 16 bytes.
bool is_aligned(const at::Tensor& matrix) {
  if (reinterpret_cast<std::uintptr_t>(matrix.const_data_ptr()) % 16 != 0) return false;
  if (matrix.dim() < 2) return true;
  const bool by_rows = matrix.stride(-1) == 1;
  const std::int64_t lines = matrix.size(by_rows ? -2 : -1), leading = matrix.stride(by_rows ? -2 : -1);
  return lines == 1 || leading * static_cast<std::int64_t>(matrix.element_size()) % 16 == 0;
}

// Not what only looks at memory in another way, makes room, or is a name of autograd's for what it calls.
bool computes(std::string_view name) {
  static const std::set<std::string_view> others = {
      "alias",      "as_strided",     "contiguous",  "detach",       "empty",
      "empty_like", "empty_strided",  "expand",      "flatten",      "narrow",
      "permute",    "reshape",        "resize_",     "resolve_conj", "result_type",
      "select",     "slice",          "split",       "squeeze",      "t",
      "to",         "transpose",      "unbind",      "unflatten",    "unsqueeze",
      "view",       "_reshape_alias", "_unsafe_view"};
  return name.starts_with("aten::") && !others.contains(name.substr(6));
}

// Of the operations of this thread while it lives. Launches: those that compute and call no other.
class Watch {
 public:
  Watch() {
    seen_ = this;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(begin, end)
                                             .needsInputs(true)
                                             .needsOutputs(true)
                                             .scopes({at::RecordScope::FUNCTION}));
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() { at::removeCallback(handle_); }

  std::int64_t launches = 0, products = 0;
  std::set<std::string> misaligned;

 private:
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& operation) {
    seen_->calls_another_.push_back(false);
    if (is_product(operation.name())) ++seen_->products;
    for (const c10::IValue& input : operation.inputs()) seen_->look_at(operation.name(), input);
    return nullptr;
  }
  static void end(const at::RecordFunction& operation, at::ObserverContext*) {
    std::vector<bool>& calls_another = seen_->calls_another_;
    const bool launches = !calls_another.back() && computes(operation.name()),
               counted = calls_another.back() || launches;
    seen_->launches += launches ? 1 : 0;
    calls_another.pop_back();
    if (!calls_another.empty() && counted) calls_another.back() = true;
    for (const c10::IValue& output : operation.outputs()) seen_->look_at(operation.name(), output);
  }

  void look_at(std::string_view name, const c10::IValue& operand) {
    if (!is_product(name) || !operand.isTensor() || is_aligned(operand.toTensor())) return;
    std::string line(name.substr(6));
    for (const std::int64_t size : operand.toTensor().sizes()) line += " " + std::to_string(size);
    misaligned.insert(line + (operand.toTensor().scalar_type() == at::kFloat ? " float32" : ""));
  }

  static inline thread_local Watch* seen_ = nullptr;
  std::vector<bool> calls_another_;  // of the operations under way, whether one within them computes
  at::CallbackHandle handle_{};
};

struct Seen {
  std::int64_t launches, products;
  std::set<std::string> misaligned;
};

enum class Phase { experts, routers };

Seen step(Phase phase, const UserModel& user, std::int64_t layers = 2) {
  const Architecture architecture = gpt2_architecture(layers, C, heads, V, T);
  const test::Weights weights = test::random_weights(architecture);
  const auto base = make_base_model(
      architecture, [&](const WeightSpec& spec) { return weights.at(spec.name).to(at::kBFloat16); },
      at::kBFloat16);
  Parameters parameters = test::random_parameters(architecture, user, 1, 0.05);
  parameters.track(phase == Phase::experts, phase == Phase::routers);
  const at::Tensor tokens = at::arange(B * T, at::kLong).mul(11).remainder(V).view({B, T});
  Watch watch;
  const Forward forward = adapter::forward(*base, tokens, parameters);
  (cross_entropy(forward.hidden, base->head(), tokens.view(-1)) +
   load_balancing_loss(forward.routing, balancing_weights(user.experts, 0.5)))
      .backward();
  return {watch.launches, watch.products, watch.misaligned};
}

std::string lines(const std::set<std::string>& all) {
  std::string text;
  for (const std::string& line : all) text += "\n" + line;
  return text;
}

const UserModel two{.experts = 2, .lora_rank = 8, .top_k = 2};

// What several threads have each of their own is summed; a GPU has it once, as one thread.
struct OneThread {
  OneThread() { at::set_num_threads(1); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;
  ~OneThread() { at::set_num_threads(before); }
  int before = at::get_num_threads();
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(products_of_a_step, OneThread)

// What is known to lie across the rows that GPUs read fast. A line may go when its cause goes; none may come.
BOOST_AUTO_TEST_CASE(operands_are_aligned_but_for_what_is_known) {
  const std::set<std::string> known = {"mm 2 64 float32"};  // the gradient of the router of two experts

  const Seen experts = step(Phase::experts, two), routers = step(Phase::routers, two);
  std::set<std::string> found = experts.misaligned;
  found.insert(routers.misaligned.begin(), routers.misaligned.end());
  BOOST_TEST(experts.products > 40);
  BOOST_TEST((found == known), "found:" << lines(found));
}

// What LibTorch would launch; besides, a layer has some ten kernels of comigs itself. These numbers may only
// fall. On a GPU four fewer a layer: there a bias is added where its product ends, and is copied to begin
// with here.
BOOST_AUTO_TEST_CASE(launches_stay_within_their_budget) {
  struct Budget {
    Phase phase;
    std::int64_t layer, beside;
  };
  for (const auto& [phase, layer, beside] :
       {Budget{Phase::experts, 32, 60}, Budget{Phase::routers, 29, 33}}) {
    const std::int64_t of_two = step(phase, two).launches, of_one = step(phase, two, 3).launches - of_two;
    BOOST_TEST(of_one <= layer);
    BOOST_TEST(of_two - 2 * of_one <= beside);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
