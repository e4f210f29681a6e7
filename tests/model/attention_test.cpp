// Attention's own passes beside its definition in float64: both precisions, groups of heads, keys in front of
// the queries, and lengths that neither vectors nor blocks divide.
#include "comigs/model/attention.hpp"

#include <ATen/ATen.h>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <limits>

#include "support/tensors.hpp"

namespace comigs::model {

namespace {

struct Shape {
  std::int64_t sequences, heads, groups, tokens, in_front, head_size;
};
std::ostream& operator<<(std::ostream& stream, const Shape& s) {
  return stream << s.sequences << " x " << s.heads << "/" << s.groups << " x " << s.tokens << " + "
                << s.in_front << " x " << s.head_size;
}
constexpr Shape shapes[] = {{2, 4, 4, 5, 0, 4},    {1, 6, 2, 33, 0, 7},   {3, 3, 1, 64, 0, 16},
                            {1, 2, 1, 129, 0, 64}, {2, 4, 2, 31, 10, 24}, {1, 2, 2, 70, 80, 40},
                            {1, 1, 1, 2, 0, 1},    {2, 2, 1, 96, 3, 128}};

struct Passes {
  at::Tensor mixed, d_queries, d_keys, d_values;
};

template <class Attention>
Passes passes(const Heads& heads, const at::Tensor& d_mixed, const Attention& attention) {
  const auto leaf = [](const at::Tensor& of) { return of.detach().clone().set_requires_grad(true); };
  const Heads own{.queries = leaf(heads.queries), .keys = leaf(heads.keys), .values = leaf(heads.values)};
  const at::Tensor mixed = attention(own);
  mixed.backward(d_mixed.to(mixed.scalar_type()));
  return {mixed.detach(), own.queries.grad(), own.keys.grad(), own.values.grad()};
}

Heads heads_of(const Shape& s, at::ScalarType type) {
  const auto drawn = [&](std::int64_t heads, std::int64_t tokens, int seed) {
    return test::normal({s.sequences, tokens, heads, s.head_size}, seed, 1.0, type).transpose(1, 2);
  };
  return {.queries = drawn(s.heads, s.tokens, 1) * 2.0,
          .keys = drawn(s.groups, s.tokens + s.in_front, 2),
          .values = drawn(s.groups, s.tokens + s.in_front, 3)};
}

at::Tensor by_definition(const Heads& heads) {
  const std::int64_t group = heads.queries.size(1) / heads.keys.size(1), tokens = heads.queries.size(2),
                     keys = heads.keys.size(2);
  const auto each = [&](const at::Tensor& of) { return of.to(at::kDouble).repeat_interleave(group, 1); };
  const at::Tensor hidden = at::ones({tokens, keys}, at::kBool).triu(keys - tokens + 1),
                   logits = heads.queries.to(at::kDouble).matmul(each(heads.keys).transpose(2, 3)) /
                            std::sqrt(static_cast<double>(heads.queries.size(3)));
  return logits.masked_fill(hidden, -std::numeric_limits<double>::infinity())
      .softmax(-1)
      .matmul(each(heads.values));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(attention_of_heads)

BOOST_DATA_TEST_CASE(passes_are_those_of_float64,
                     boost::unit_test::data::make(shapes) *
                         boost::unit_test::data::make({at::kFloat, at::kBFloat16}),
                     shape, type) {
  const Heads heads = heads_of(shape, type);
  const at::Tensor d_mixed = test::normal(heads.queries.sizes(), 4, 1.0, type);
  const Passes found = passes(heads, d_mixed, [](const Heads&of) { return attention(of); }),
               expected = passes(heads, d_mixed, by_definition);
  const double tolerance = type == at::kFloat ? 5e-6 : 8e-3;  // bfloat16: what comes in and out is rounded
  BOOST_TEST(found.mixed.scalar_type() == type);
  BOOST_TEST(test::close(found.mixed, expected.mixed, tolerance));
  BOOST_TEST(test::close(found.d_queries, expected.d_queries, tolerance));
  BOOST_TEST(test::close(found.d_keys, expected.d_keys, tolerance));
  BOOST_TEST(test::close(found.d_values, expected.d_values, tolerance));
}

BOOST_AUTO_TEST_CASE(large_logits_do_not_overflow) {
  Heads heads = heads_of({1, 1, 1, 40, 0, 8}, at::kFloat);
  heads.queries = heads.queries * 1e4;
  BOOST_TEST(test::close(attention(heads), by_definition(heads), 1e-4));
}

BOOST_AUTO_TEST_CASE(what_comes_later_is_not_looked_at) {
  Heads heads = heads_of({1, 2, 1, 40, 0, 8}, at::kFloat);
  heads.values = heads.values.clone();
  const at::Tensor before = attention(heads);
  heads.values.narrow(2, 39, 1).fill_(1e30);
  BOOST_TEST(attention(heads).narrow(2, 0, 39).equal(before.narrow(2, 0, 39)));
}

BOOST_AUTO_TEST_CASE(without_gradients_it_is_the_same) {
  const Heads heads = heads_of({2, 4, 2, 45, 3, 16}, at::kFloat);
  const at::Tensor with = attention(heads);
  const at::NoGradGuard guard;
  BOOST_TEST(attention(heads).equal(with));
}

BOOST_AUTO_TEST_CASE(heads_that_do_not_go_together_are_refused) {
  const Heads heads = heads_of({1, 4, 2, 9, 3, 8}, at::kFloat);
  const auto refused = [&](Heads changed) { BOOST_CHECK_THROW(attention(changed), c10::Error); };
  refused({heads.queries, heads.keys, heads.values.to(at::kBFloat16)});
  refused({heads.queries, heads.keys.narrow(2, 0, 8), heads.values.narrow(2, 0, 8)});
  refused({heads.queries.narrow(1, 0, 3), heads.keys, heads.values});
}

BOOST_AUTO_TEST_CASE(the_scale_can_be_given) {
  const Heads heads = heads_of({1, 2, 2, 9, 0, 8}, at::kFloat);
  const Heads scaled{
      .queries = heads.queries * std::sqrt(8.0) * 0.5, .keys = heads.keys, .values = heads.values};
  BOOST_TEST(test::close(attention(heads, 0.5), by_definition(scaled), 5e-6));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace comigs::model
