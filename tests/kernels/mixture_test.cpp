// The vectorised mixture against its definition, at odd sizes, for any number of active experts.
#include "comigs/kernels/mixture.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <functional>
#include <vector>

#include "mixture_problem.hpp"

namespace comigs::kernels {

namespace {

void add(const std::vector<float>& numbers, std::vector<float>& to) {
  std::ranges::transform(numbers, to, to.begin(), std::plus());
}

template <class Number>
void compare(const Problem<Number>& problem, double tolerance) {
  const MixtureShape& shape = problem.shape;
  Result<Number> found(shape), part(shape);
  // In parts, as threads take them: tokens forward, columns backward.
  const std::int64_t tokens = shape.tokens / 3, columns = shape.inner / 2;
  mixture_forward(problem.inputs(), found.outputs(), 0, tokens);
  mixture_forward(problem.inputs(), found.outputs(), tokens, shape.tokens);
  mixture_backward(problem.inputs(), found.gradients(problem), 0, columns);
  // Sums over columns are each part's own.
  MixtureGradients<Number> gradients = found.gradients(problem);
  gradients.d_reduced = part.d_reduced.data();
  gradients.d_gate = part.d_gate.data();
  mixture_backward(problem.inputs(), gradients, columns, shape.inner);
  add(part.d_reduced, found.d_reduced);
  add(part.d_gate, found.d_gate);
  check_close(found, reference(problem), tolerance);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mixture_kernels)

BOOST_AUTO_TEST_CASE(float32_is_the_definition) {
  for (const auto& [shape, active] : std::vector<std::pair<MixtureShape, std::int64_t>>{{{7, 19, 1, 3}, 1},
                                                                                        {{1, 1, 1, 1}, 1},
                                                                                        {{70, 300, 4, 8}, 2},
                                                                                        {{33, 1100, 2, 5}, 2},
                                                                                        {{131, 257, 8, 5}, 2},
                                                                                        {{17, 64, 8, 4}, 1},
                                                                                        {{17, 64, 8, 16}, 8},
                                                                                        {{0, 64, 2, 8}, 2}})
    for (const Activation activation : activations)
      compare(Problem<float>(with(shape, activation), active), 1e-6);
}

BOOST_AUTO_TEST_CASE(far_from_zero_it_stays_finite) {
  for (const Activation activation : activations)
    compare(Problem<float>({5, 44, 2, 3, activation}, 2).far_from_zero(), 1e-6);
}

BOOST_AUTO_TEST_CASE(bfloat16_is_the_definition_to_its_precision) {
  // Each of the active experts rounds the sum once more.
  for (const auto& [shape, active] : std::vector<std::pair<MixtureShape, std::int64_t>>{
           {{7, 19, 1, 3}, 1}, {{70, 300, 4, 8}, 2}, {{33, 1100, 2, 5}, 2}})
    for (const Activation activation : activations)
      compare(Problem<Bfloat16>(with(shape, activation), active), one_step);
}

BOOST_AUTO_TEST_CASE(gradients_that_are_not_asked_for_are_not_made) {
  for (const Activation activation : activations) {
    const MixtureShape shape{9, 40, 3, 4, activation};
    const Problem<float> problem(shape, 2);
    Result<float> all(shape), some(shape);
    MixtureGradients<float> gradients = some.gradients(problem);
    gradients.d_gate = gradients.d_up_B = gradients.d_down_A = nullptr;
    mixture_backward(problem.inputs(), gradients, 0, shape.inner);
    mixture_backward(problem.inputs(), all.gradients(problem), 0, shape.inner);
    BOOST_TEST((some.d_hidden == all.d_hidden));
    BOOST_TEST((some.d_reduced == all.d_reduced));
    BOOST_TEST((some.d_up_B == std::vector<float>(some.d_up_B.size(), 7.0f)));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
