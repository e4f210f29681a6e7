// The mixture of experts, which runs each frozen product once, against every expert run in full.
#include "comigs/adapter/mixture.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <boost/test/unit_test.hpp>

#include <array>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "support/tensors.hpp"

namespace comigs::adapter {

using namespace model;

namespace {

using test::close;
using test::normal;

constexpr std::array activations = {Activation::gelu_tanh, Activation::silu_gated};

constexpr std::int64_t n = 9, C = 6, F = 10, R = 3;

// Leaves for everything that the mixture is differentiable in.
struct Problem {
  explicit Problem(std::int64_t experts_, at::ScalarType dtype = at::kDouble,
                   Activation activation = Activation::gelu_tanh)
      : experts(experts_) {
    const std::int64_t S = kernels::up_projections(activation);
    const auto frozen = [&](at::IntArrayRef shape, std::uint32_t number) {
      return normal(shape, number, 0.5).to(dtype);
    };
    const auto leaf = [&](at::IntArrayRef shape, std::uint32_t number) {
      return frozen(shape, number).set_requires_grad(true);
    };
    // GPT-2's block, and one whose weights lie as [out, in] and have no biases.
    if (activation == Activation::gelu_tanh)
      mlp = {.activation = activation,
             .up = {{frozen({C, F}, 1), frozen({F}, 2)}},
             .down = {frozen({F, C}, 3), frozen({C}, 4)}};
    else
      mlp = {.activation = activation,
             .up = {{frozen({F, C}, 1).t(), {}}, {frozen({F, C}, 2).t(), {}}},
             .down = {frozen({C, F}, 3).t(), {}}};
    factors = {.up_A = leaf({S * experts * R, C}, 5),
               .up_B = leaf({S * experts, R, F}, 6),
               .down_A = leaf({experts, R, F}, 7),
               .down_B = leaf({C, experts * R}, 8)};
    x = leaf({n, C}, 9);
    // Some gates are shut: every token leaves out the expert of its own number.
    const at::Tensor drawn = normal({n, experts}, 10).to(dtype);
    at::Tensor shut =
        at::arange(n, at::kLong).remainder(experts).unsqueeze(1).eq(at::arange(experts, at::kLong));
    if (experts == 1) shut = at::zeros({n, 1}, at::kBool);
    logits = drawn.set_requires_grad(true);
    mask = shut;
    weights = normal({n, C}, 11).to(dtype);
  }

  [[nodiscard]] at::Tensor gate() const {
    return logits.masked_fill(mask, -std::numeric_limits<double>::infinity()).softmax(-1);
  }

  // sum_i g_i expert_i(x), each expert with its own frozen products and biases, as the paper writes it.
  [[nodiscard]] at::Tensor one_by_one(const at::Tensor& gates) const {
    at::Tensor y;
    for (std::int64_t e = 0; e < experts; ++e) {
      std::vector<at::Tensor> before;
      for (std::size_t s = 0; s < mlp.up.size(); ++s) {
        const std::int64_t slot = static_cast<std::int64_t>(s) * experts + e;
        const at::Tensor A = factors.up_A.narrow(0, slot * R, R), B = factors.up_B.select(0, slot).t();
        before.push_back(x.matmul(mlp.up[s].matrix) + x.matmul(A.t()).matmul(B.t()));
        if (mlp.up[s].bias.defined()) before.back() = before.back() + mlp.up[s].bias;
      }
      const at::Tensor a =
          before.size() == 1 ? at::gelu(before[0], "tanh") : before[0] * at::sigmoid(before[0]) * before[1];
      const at::Tensor down_A = factors.down_A.select(0, e), down_B = factors.down_B.narrow(1, e * R, R);
      at::Tensor expert = a.matmul(mlp.down.matrix) + a.matmul(down_A.t()).matmul(down_B.t());
      if (mlp.down.bias.defined()) expert = expert + mlp.down.bias;
      const at::Tensor part = gates.narrow(1, e, 1) * expert;
      y = y.defined() ? y + part : part;
    }
    return y;
  }

  [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> leaves() const {
    return {{"x", x},
            {"logits", logits},
            {"up_A", factors.up_A},
            {"up_B", factors.up_B},
            {"down_A", factors.down_A},
            {"down_B", factors.down_B}};
  }

  // The gradients of a weighted sum of y.
  [[nodiscard]] std::vector<at::Tensor> gradients(const at::Tensor& y) const {
    for (const auto& [name, tensor] : leaves()) tensor.mutable_grad() = at::Tensor();
    (y * weights).sum().backward();
    std::vector<at::Tensor> found;
    for (const auto& [name, tensor] : leaves()) found.push_back(tensor.grad());
    return found;
  }

  std::int64_t experts;
  FrozenMlp mlp;
  ExpertFactors factors;
  at::Tensor x, logits, mask, weights;
};

void compare(const Problem& problem, double tolerance, double gate_tolerance) {
  const at::Tensor y = mixture_mlp(problem.x, problem.gate(), problem.mlp, problem.factors);
  const at::Tensor expected = problem.one_by_one(problem.gate());
  BOOST_TEST(close(y, expected, tolerance));
  const std::vector<at::Tensor> found = problem.gradients(y), wanted = problem.gradients(expected);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::string name = problem.leaves()[i].first;
    if (name == "logits" && problem.experts == 1) continue;  // the gate is the constant 1
    BOOST_TEST(close(found[i], wanted[i], name == "logits" ? gate_tolerance : tolerance),
               name << ", " << problem.experts << " experts");
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixtures)

BOOST_AUTO_TEST_CASE(values_and_all_gradients_in_float64) {
  // The gate's gradient is summed in float32 in any case.
  for (const Activation activation : activations)
    for (const std::int64_t experts : {1, 2, 4})
      compare(Problem(experts, at::kDouble, activation), 1e-12, 1e-6);
}

BOOST_AUTO_TEST_CASE(values_and_all_gradients_in_float32) {
  for (const Activation activation : activations)
    for (const std::int64_t experts : {1, 2, 4})
      compare(Problem(experts, at::kFloat, activation), 1e-5, 1e-5);
}

BOOST_AUTO_TEST_CASE(finite_differences) {
  for (const Activation activation : activations) {
    Problem problem(2, at::kDouble, activation);
    const auto loss = [&] {
      const at::NoGradGuard no_gradients;
      return (mixture_mlp(problem.x, problem.gate(), problem.mlp, problem.factors) * problem.weights)
          .sum()
          .item<double>();
    };
    const std::vector<at::Tensor> gradients =
        problem.gradients(mixture_mlp(problem.x, problem.gate(), problem.mlp, problem.factors));
    const auto leaves = problem.leaves();
    constexpr double step = 1e-4;
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      at::Tensor flat = leaves[i].second.detach().view(-1);
      for (std::int64_t k = 0; k < flat.numel(); k += 5) {
        const double kept = flat[k].item<double>();
        flat[k] = kept + step;
        const double above = loss();
        flat[k] = kept - step;
        const double below = loss();
        flat[k] = kept;
        BOOST_TEST(std::abs((above - below) / (2 * step) - gradients[i].view(-1)[k].item<double>()) < 1e-5,
                   leaves[i].first << "[" << k << "]");
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(gradient_of_the_gate_itself) {
  for (const Activation activation : activations) {
    // With the bias once, as where gates sum to 1, the gradient of every gate stands on its own, shut ones
    // too.
    Problem problem(4, at::kDouble, activation);
    const at::Tensor gate = problem.gate().detach().to(at::kFloat).set_requires_grad(true);
    (mixture_mlp(problem.x, gate, problem.mlp, problem.factors) * problem.weights).sum().backward();
    const at::Tensor free = problem.gate().detach().set_requires_grad(true);
    Problem unbiased = problem;
    unbiased.mlp.down.bias = at::Tensor();
    (unbiased.one_by_one(free) * problem.weights).sum().backward();
    BOOST_TEST((gate.grad().scalar_type() == at::kFloat));
    BOOST_TEST(close(gate.grad(), free.grad(), 1e-6));
  }
}

BOOST_AUTO_TEST_CASE(the_bias_counts_as_often_as_the_gates_say) {
  for (const Activation activation : activations) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      const Problem problem(3, dtype, activation);
      const double tolerance = dtype == at::kFloat ? 1e-5 : 1e-6;  // gates are float32 in any case
      const at::Tensor gate = (problem.gate().detach() * 0.6).to(at::kFloat).set_requires_grad(true),
                       free = gate.detach().to(dtype).set_requires_grad(true);
      const at::Tensor y = mixture_mlp(problem.x, gate, problem.mlp, problem.factors, gate.sum(-1, true));
      const at::Tensor expected = problem.one_by_one(free);
      BOOST_TEST(close(y, expected, tolerance));
      const std::vector<at::Tensor> found = problem.gradients(y), wanted = problem.gradients(expected);
      for (std::size_t i = 0; i < found.size(); ++i)
        if (problem.leaves()[i].first != "logits")
          BOOST_TEST(close(found[i], wanted[i], tolerance), problem.leaves()[i].first);
      const at::Tensor open = gate.detach().gt(0);
      BOOST_TEST(close(gate.grad() * open, free.grad() * open, 1e-5));
    }
  }
}

BOOST_AUTO_TEST_CASE(without_B_it_is_the_frozen_block) {
  for (const Activation activation : activations) {
    for (const std::int64_t experts : {1, 2, 4}) {
      Problem problem(experts, at::kDouble, activation);
      problem.factors.up_B = at::zeros_like(problem.factors.up_B);
      problem.factors.down_B = at::zeros_like(problem.factors.down_B);
      const at::Tensor y = mixture_mlp(problem.x, problem.gate(), problem.mlp, problem.factors);
      BOOST_TEST(close(y, plain_mlp(problem.x, problem.mlp), 1e-12));
    }
  }
}

BOOST_AUTO_TEST_CASE(plain_block_by_hand) {
  const Problem problem(1);
  const auto& [up, down] = std::tie(problem.mlp.up[0], problem.mlp.down);
  const at::Tensor h = problem.x.matmul(up.matrix) + up.bias;
  // "gelu_new" of GPT-2, written out.
  const at::Tensor a = 0.5 * h * (1.0 + at::tanh(0.7978845608028654 * (h + 0.044715 * h.pow(3))));
  BOOST_TEST(close(plain_mlp(problem.x, problem.mlp), a.matmul(down.matrix) + down.bias, 1e-12));
}

BOOST_AUTO_TEST_CASE(a_shut_expert_gets_no_gradient) {
  for (const Activation activation : activations) {
    Problem problem(3, at::kDouble, activation);
    at::Tensor gate = at::zeros({n, 3});
    gate.select(1, 0).fill_(0.25);
    gate.select(1, 2).fill_(0.75);
    (mixture_mlp(problem.x, gate, problem.mlp, problem.factors) * problem.weights).sum().backward();
    const at::Tensor up_A = problem.factors.up_A.grad().view({-1, 3, R * C}).transpose(0, 1),
                     down_B = problem.factors.down_B.grad().view({C, 3, R});
    BOOST_TEST(up_A[1].abs().max().item<double>() == 0.0);
    BOOST_TEST(problem.factors.up_B.grad().view({-1, 3, F, R}).select(1, 1).abs().max().item<double>() ==
               0.0);
    BOOST_TEST(problem.factors.down_A.grad()[1].abs().max().item<double>() == 0.0);
    BOOST_TEST(down_B.select(1, 1).abs().max().item<double>() == 0.0);
    BOOST_TEST(up_A[0].abs().max().item<double>() > 0.0);
  }
}

BOOST_AUTO_TEST_CASE(nothing_is_made_for_what_does_not_ask) {
  for (const Activation activation : activations) {
    Problem problem(2, at::kDouble, activation);
    problem.factors.up_B.set_requires_grad(false);
    problem.x.set_requires_grad(false);
    (mixture_mlp(problem.x, problem.gate().detach(), problem.mlp, problem.factors) * problem.weights)
        .sum()
        .backward();
    BOOST_TEST(!problem.x.grad().defined());
    BOOST_TEST(!problem.logits.grad().defined());
    BOOST_TEST(!problem.factors.up_B.grad().defined());
    BOOST_TEST(problem.factors.up_A.grad().defined());
    BOOST_TEST(problem.factors.down_A.grad().defined());
    BOOST_TEST(problem.factors.down_B.grad().defined());
  }
}

BOOST_AUTO_TEST_CASE(inputs_are_left_as_they_were) {
  for (const Activation activation : activations) {
    Problem problem(2, at::kDouble, activation);
    std::vector<at::Tensor> before;
    for (const auto& [name, tensor] : problem.leaves()) before.push_back(test::copy_of(tensor));
    (void)problem.gradients(mixture_mlp(problem.x, problem.gate(), problem.mlp, problem.factors));
    for (std::size_t i = 0; i < before.size(); ++i)
      BOOST_TEST(test::same_bits(problem.leaves()[i].second, before[i]));
  }
}

BOOST_AUTO_TEST_CASE(bf16_stays_near_float32) {
  for (const Activation activation : activations) {
    const Problem exact(2, at::kFloat, activation);
    const auto narrow = [](const at::Tensor& tensor) { return tensor.detach().to(at::kBFloat16); };
    const auto narrowed = [&](const Weight& weight) {
      return Weight{narrow(weight.matrix), weight.bias.defined() ? narrow(weight.bias) : at::Tensor()};
    };
    FrozenMlp mlp{.activation = exact.mlp.activation, .up = {}, .down = narrowed(exact.mlp.down)};
    for (const Weight& up : exact.mlp.up) mlp.up.push_back(narrowed(up));
    const std::vector<at::Tensor> leaves = {narrow(exact.x),
                                            exact.gate().detach(),
                                            narrow(exact.factors.up_A),
                                            exact.factors.up_B.detach().clone(),
                                            exact.factors.down_A.detach().clone(),
                                            narrow(exact.factors.down_B)};
    for (const at::Tensor& leaf : leaves) leaf.set_requires_grad(true);
    const ExpertFactors factors = {leaves[2], leaves[3], leaves[4], leaves[5]};
    const at::Tensor y = mixture_mlp(leaves[0], leaves[1], mlp, factors);
    BOOST_TEST((y.scalar_type() == at::kBFloat16));
    BOOST_TEST(close(y, exact.one_by_one(exact.gate()), 3e-2));
    const at::Tensor gate = exact.gate().detach().set_requires_grad(true);
    const std::vector<at::Tensor> inputs = {
        exact.x, gate, exact.factors.up_A, exact.factors.up_B, exact.factors.down_A, exact.factors.down_B};
    const auto expected = torch::autograd::grad({exact.one_by_one(gate).sum()}, inputs);
    y.sum().backward();
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const bool is_gate = i == 1;
      // Inactive experts have no gradient; and as the shares of a token sum to one, what all of them gain is
      // nobody's gain.
      const auto relative = [&](const at::Tensor& gradient) {
        if (!is_gate) return gradient.to(at::kFloat);
        const at::Tensor active = gate.detach().gt(0).to(at::kFloat);
        const at::Tensor mean = (gradient * active).sum(-1, true) / active.sum(-1, true);
        return (gradient - mean) * active;
      };
      BOOST_TEST((leaves[i].grad().scalar_type() == leaves[i].scalar_type()));
      BOOST_TEST(close(relative(leaves[i].grad()), relative(expected[i]), 5e-2), "input " << i);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::adapter
