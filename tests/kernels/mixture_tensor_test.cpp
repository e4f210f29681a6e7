// The mixture by tensor cores, run on the CPU with products as the PTX manual lays them out, against the
// definition.
#include <boost/test/unit_test.hpp>

#include <vector>

#include "device_mixture.hpp"

namespace comigs::kernels {

namespace {

// Terms of sums are rounded to bfloat16: by 2^-8 of themselves at most.
constexpr double rounded_terms = 1.0 / 256;

Problem<Bfloat16> rounded(Problem<Bfloat16> problem) {
  for (std::vector<float>* operand : {&problem.reduced, &problem.up_B, &problem.down_A, &problem.d_weighted})
    for (float& number : *operand) {
      Bfloat16 nearest = 0;
      from_float(number, nearest);
      number = to_float(nearest);
    }
  return problem;
}

Result<Bfloat16> by_tensor_cores(const Problem<Bfloat16>& problem, Order order = Order::forwards,
                                 std::int64_t parts = as_planned) {
  return problem.shape.rank > octet ? device<ByTensorCores<2>>(problem, order, parts)
                                    : device<ByTensorCores<1>>(problem, order, parts);
}

void check_close_but_for_rounding(const Result<Bfloat16>& found, const Result<Bfloat16>& expected) {
  check_close("mixed", found.mixed, expected.mixed, one_step);
  check_rounded_once(found.mixed, expected.mixed);
  check_close("d_hidden", found.d_hidden, expected.d_hidden, one_step);
  check_rounded_once(found.d_hidden, expected.d_hidden);
  check_close("d_gate", found.d_gate, expected.d_gate, 1e-5);
  check_near("weighted", found.weighted, expected.weighted, rounded_terms);
  check_near("d_reduced", found.d_reduced, expected.d_reduced, rounded_terms);
  check_near("d_up_B", found.d_up_B, expected.d_up_B, rounded_terms);
  check_near("d_down_A", found.d_down_A, expected.d_down_A, rounded_terms);
}

const std::vector<std::pair<MixtureShape, std::int64_t>> shapes = {
    {{7, 20, 1, 3}, 1},   {{1, 4, 1, 1}, 1},     {{70, 300, 4, 8}, 2},
    {{33, 516, 2, 5}, 2}, {{131, 260, 8, 5}, 2}, {{17, 64, 8, 4}, 1},
    {{17, 64, 8, 16}, 8}, {{270, 132, 3, 9}, 1}, {{0, 64, 2, 8}, 2}};

}  // namespace

BOOST_AUTO_TEST_SUITE(mixture_by_tensor_cores)

BOOST_AUTO_TEST_CASE(of_operands_in_bfloat16_it_is_the_definition) {
  for (const auto& [shape, active] : shapes)
    for (const Activation activation : activations) {
      const Problem<Bfloat16> problem = rounded({with(shape, activation), active});
      BOOST_TEST_CONTEXT("n " << shape.tokens << ", F " << shape.inner << ", E " << shape.experts << ", R "
                              << shape.rank << ", S " << problem.shape.ups()) {
        const Result<Bfloat16> found = by_tensor_cores(problem);
        check_close_but_for_rounding(found, reference(problem));
        check_same_bits(found, by_tensor_cores(problem, Order::backwards));
      }
    }
}

BOOST_AUTO_TEST_CASE(other_operands_are_rounded_to_it) {
  for (const Activation activation : activations)
    for (const std::int64_t rank : {8, 12}) {
      const Problem<Bfloat16> problem({40, 72, 3, rank, activation}, 2);
      check_same_bits(by_tensor_cores(problem), by_tensor_cores(rounded(problem)));
    }
}

BOOST_AUTO_TEST_CASE(at_real_shapes) {
  for (const MixtureShape& shape :
       {MixtureShape{600, 3072, 2, 8}, {600, 3072, 8, 8}, {300, 1536, 4, 16, Activation::silu_gated}}) {
    const Problem<Bfloat16> problem = rounded({shape, 2});
    check_close_but_for_rounding(by_tensor_cores(problem, Order::forwards, 2), reference(problem));
  }
}

BOOST_AUTO_TEST_CASE(far_from_zero_it_stays_finite) {
  for (const Activation activation : activations) {
    const Problem<Bfloat16> problem = rounded({{5, 44, 2, 3, activation}, 2}).far_from_zero();
    check_close_but_for_rounding(by_tensor_cores(problem), reference(problem));
  }
}

BOOST_AUTO_TEST_CASE(tokens_in_parts_sum_to_the_same) {
  for (const Activation activation : activations) {
    const Problem<Bfloat16> problem = rounded({{530, 20, 2, 3, activation}, 1});
    const Result<Bfloat16> expected = reference(problem);
    for (const std::int64_t parts : {1, 2, 3, 5})
      check_close_but_for_rounding(by_tensor_cores(problem, Order::forwards, parts), expected);
  }
}

BOOST_AUTO_TEST_CASE(gradients_that_are_not_asked_for_are_not_made) {
  for (const Activation activation : activations)
    for (const std::int64_t rank : {6, 12}) {
      const Problem<Bfloat16> problem({40, 24, 3, rank, activation}, 2);
      const Result<Bfloat16> all = by_tensor_cores(problem), untouched(problem.shape);
      for (const bool up_B : {false, true})
        for (const bool down_A : {false, true}) {
          Result<Bfloat16> some(problem.shape);
          MixtureGradients<Bfloat16> gradients = some.gradients(problem);
          gradients.d_gate = nullptr;
          if (!up_B) gradients.d_up_B = nullptr;
          if (!down_A) gradients.d_down_A = nullptr;
          backward<ByTensorCores<2>>(problem.inputs(), gradients, Order::forwards, as_planned);
          BOOST_TEST((some.d_hidden == all.d_hidden));
          BOOST_TEST((some.d_reduced == all.d_reduced));
          BOOST_TEST((some.d_gate == untouched.d_gate));
          BOOST_TEST((some.d_up_B == (up_B ? all.d_up_B : untouched.d_up_B)));
          BOOST_TEST((some.d_down_A == (down_A ? all.d_down_A : untouched.d_down_A)));
        }
    }
}

// Which way is taken, of what lies how in memory.
BOOST_AUTO_TEST_CASE(they_are_used_for_bfloat16_of_ranks_to_16) {
  const auto eights = [](const auto& problem) {
    int found = -1;
    with_way(problem.inputs(), {problem.hidden.data()}, [&](auto way) {
      if constexpr (requires { decltype(way)::rank_eights; })
        found = decltype(way)::rank_eights;
      else
        found = 0;
    });
    return found;
  };
  BOOST_TEST(eights(Problem<Bfloat16>({3, 8, 2, 8}, 2)) == 1);
  BOOST_TEST(eights(Problem<Bfloat16>({3, 8, 2, 9}, 2)) == 2);
  BOOST_TEST(eights(Problem<Bfloat16>({3, 8, 2, 17}, 2)) == 0);
  BOOST_TEST(eights(Problem<Bfloat16>({3, 9, 2, 8}, 2)) == 0);
  BOOST_TEST(eights(Problem<float>({3, 8, 2, 8}, 2)) == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
