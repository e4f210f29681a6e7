// The device's norm, run on the host, against the host's own, whose definition tests/model has: widths that
// packs and warps divide and do not, several blocks, rows left over.
#include "comigs/kernels/norm.hpp"

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <random>
#include <type_traits>
#include <vector>

#include "agreement.hpp"
#include "host_block.hpp"
#include "norm_block.hpp"

namespace comigs::kernels {

namespace {

namespace bdata = boost::unit_test::data;

constexpr int threads = 64;  // two rows a block
constexpr std::int64_t rows_of_block = threads / warp_lanes;

template <class Number>
std::vector<Number> normal(std::int64_t count, unsigned draw) {
  std::mt19937 generator(draw);
  std::normal_distribution<float> of(0.0f, 1.5f);
  std::vector<Number> numbers(static_cast<std::size_t>(count));
  for (Number& number : numbers) from_float(of(generator), number);
  return numbers;
}

template <class Number>
struct Problem {
  NormShape shape;
  bool adds;
  std::vector<Number> x, added, weight, bias, d_y, d_sum;
  std::vector<float> reader, d_read;

  Problem(const NormShape& shape_, bool adds_)
      : shape(shape_),
        adds(adds_),
        x(normal<Number>(shape.rows * shape.width, 1)),
        added(normal<Number>(shape.rows * shape.width, 2)),
        weight(normal<Number>(shape.width, 3)),
        bias(normal<Number>(shape.width, 4)),
        d_y(normal<Number>(shape.rows * shape.width, 5)),
        d_sum(normal<Number>(shape.rows * shape.width, 6)),
        reader(normal<float>(shape.readers * shape.width, 7)),
        d_read(normal<float>(shape.rows * shape.readers, 8)) {}
};

template <class Number>
struct Result {
  std::vector<Number> sum, y, d_x;
  std::vector<float> mean, inverse, read;

  explicit Result(const Problem<Number>& of)
      : sum(of.x),
        y(of.x.size()),
        d_x(of.x.size()),
        mean(static_cast<std::size_t>(of.shape.rows)),
        inverse(mean.size()),
        read(of.d_read.size()) {}

  NormForward<Number> forward(const Problem<Number>& of) {
    return {.shape = of.shape,
            .epsilon = 1e-5f,
            .x = of.x.data(),
            .added = of.adds ? of.added.data() : nullptr,
            .weight = of.weight.data(),
            .bias = of.shape.centred ? of.bias.data() : nullptr,
            .reader = of.reader.data(),
            .sum = of.adds ? sum.data() : nullptr,
            .y = y.data(),
            .mean = of.shape.centred ? mean.data() : nullptr,
            .inverse = inverse.data(),
            .read = read.data()};
  }
  NormBackward<Number> backward(const Problem<Number>& of) {
    return {.shape = of.shape,
            .sum = sum.data(),
            .weight = of.weight.data(),
            .reader = of.reader.data(),
            .mean = of.shape.centred ? mean.data() : nullptr,
            .inverse = inverse.data(),
            .d_y = of.d_y.data(),
            .d_read = of.d_read.data(),
            .d_sum = of.adds ? of.d_sum.data() : nullptr,
            .d_x = d_x.data()};
  }
};

template <class Number>
Result<Number> by_host(const Problem<Number>& problem) {
  Result<Number> result(problem);
  const std::int64_t rows = problem.shape.rows;
  for (const auto& [begin, end] : {std::pair{std::int64_t{0}, rows / 3}, std::pair{rows / 3, rows}})
    norm_forward(result.forward(problem), begin, end);
  for (const auto& [begin, end] : {std::pair{std::int64_t{0}, rows / 3}, std::pair{rows / 3, rows}})
    norm_backward(result.backward(problem), begin, end);
  return result;
}

template <int together, class Number>
Result<Number> by_blocks(const Problem<Number>& problem, Order order) {
  Result<Number> result(problem);
  const std::int64_t blocks = (problem.shape.rows + rows_of_block - 1) / rows_of_block;
  for (std::int64_t index = 0; index < blocks; ++index)
    run_block<threads>(1, order, [&](auto& block) {
      norm_forward_block<together>(block, result.forward(problem), index);
      norm_backward_block<together>(block, result.backward(problem), index);
    });
  return result;
}

template <class Number>
void check_same(const Result<Number>& found, const Result<Number>& expected) {
  constexpr double tolerance = std::is_same_v<Number, float> ? 1e-5 : 1.0 / 128;
  check_close("sum", found.sum, expected.sum, 0.0);
  check_close("y", found.y, expected.y, tolerance);
  check_close("mean", found.mean, expected.mean, 1e-5);
  check_close("inverse", found.inverse, expected.inverse, 1e-5);
  check_close("read", found.read, expected.read, tolerance);
  check_close("d_x", found.d_x, expected.d_x, tolerance);
}

template <class Number>
void check_device(const NormShape& shape, bool adds) {
  const Problem<Number> problem(shape, adds);
  const Result<Number> host = by_host(problem), single = by_blocks<1>(problem, Order::forwards);
  check_same(single, host);
  BOOST_TEST((by_blocks<1>(problem, Order::backwards).d_x == single.d_x));
  if (shape.width % 4 != 0) return;
  const Result<Number> packs = by_blocks<4>(problem, Order::forwards);
  check_same(packs, host);
  BOOST_TEST((by_blocks<4>(problem, Order::backwards).d_x == packs.d_x));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(norm_kernels)

BOOST_DATA_TEST_CASE(device_text_agrees_with_the_host,
                     bdata::make({3, 36, 128, 768}) * bdata::make({0, 2, 5}) * bdata::make({false, true}) *
                         bdata::make({false, true}),
                     width, readers, centred, adds) {
  const NormShape shape{.rows = 5, .width = width, .readers = readers, .centred = centred};
  check_device<float>(shape, adds);
  check_device<Bfloat16>(shape, adds);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::kernels
