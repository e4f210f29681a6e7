// The device's mixture on the CPU, in either of its ways: a HostBlock after the other, in workspace of its
// own.
#pragma once

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <limits>
#include <vector>

#include "host_block.hpp"
#include "mixture_plan.hpp"
#include "mixture_problem.hpp"

namespace comigs::kernels {

// Workspace that begins as NaN: nobody may read what nobody wrote, nor write behind it.
struct Workspace {
  explicit Workspace(std::size_t bytes)
      : floats(bytes / sizeof(float) + 1, std::numeric_limits<float>::quiet_NaN()) {
    floats.back() = guard;
  }
  ~Workspace() { BOOST_TEST(floats.back() == guard); }
  static constexpr float guard = 123.0f;
  std::vector<float> floats;
};

template <class Way>
std::size_t tile_floats(Way way, const MixtureShape& shape) {
  return static_cast<std::size_t>(memory_bytes(way, shape)) / sizeof(float);
}

template <class Pass>
void finish_all(const Pass& pass) {
  for (std::int64_t i = 0; i < finish_elements(pass); ++i) finish(pass, i);
}

template <class Way, class How, class Number>
void forward(const MixtureInputs<Number>& in, const MixtureOutputs<Number>& out, How how) {
  Workspace workspace(mixture_forward_workspace(in.shape));
  with_activation(in.shape.activation, [&](auto activation) {
    const auto pass = forward_pass<decltype(activation), Way>(in, out, workspace.floats.data());
    for (int token_tile = 0; token_tile < token_tiles(in.shape); ++token_tile)
      for (int column_tile = 0; column_tile < column_tiles(in.shape); ++column_tile)
        run_block<tile_threads>(tile_floats(Way(), in.shape), how, [&](auto& block) {
          mixture_forward_tile(block, pass, column_tile, token_tile);
        });
    finish_all(pass);
  });
}

template <class Way, class How, class Number>
void backward(const MixtureInputs<Number>& in, const MixtureGradients<Number>& g, How how,
              std::int64_t parts) {
  Workspace workspace(mixture_backward_workspace(in.shape));
  with_activation(in.shape.activation, [&](auto activation) {
    auto pass = backward_pass<decltype(activation), Way>(in, g, workspace.floats.data());
    pass.parts = std::min(parts, pass.parts);
    for (int part = 0; part < pass.parts; ++part)
      for (int column_tile = 0; column_tile < column_tiles(in.shape); ++column_tile)
        run_block<tile_threads>(tile_floats(Way(), in.shape), how,
                                [&](auto& block) { mixture_backward_part(block, pass, column_tile, part); });
    finish_all(pass);
  });
}

inline constexpr std::int64_t as_planned = std::numeric_limits<std::int64_t>::max();

/// `how`: an Order, or OsThreads.
template <class Way, class How, class Number>
Result<Number> device(const Problem<Number>& problem, How how, std::int64_t parts = as_planned) {
  Result<Number> result(problem.shape);
  forward<Way>(problem.inputs(), result.outputs(), how);
  backward<Way>(problem.inputs(), result.gradients(problem), how, parts);
  return result;
}

template <class Number>
void check_same_bits(const Result<Number>& a, const Result<Number>& b) {
  BOOST_TEST((a.mixed == b.mixed));
  BOOST_TEST((a.weighted == b.weighted));
  BOOST_TEST((a.d_hidden == b.d_hidden));
  BOOST_TEST((a.d_reduced == b.d_reduced));
  BOOST_TEST((a.d_gate == b.d_gate));
  BOOST_TEST((a.d_up_B == b.d_up_B));
  BOOST_TEST((a.d_down_A == b.d_down_A));
}

// Of what was rounded once, from sums that agree to 1e-6, few numbers come out another way.
inline void check_rounded_once(const std::vector<Bfloat16>& found, const std::vector<Bfloat16>& expected) {
  std::size_t different = 0;
  for (std::size_t i = 0; i < found.size(); ++i) different += found[i] == expected[i] ? 0 : 1;
  BOOST_TEST(different <= found.size() / 100);
}

}  // namespace comigs::kernels
