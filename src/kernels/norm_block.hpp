// The device's norm: a warp a row, whose lanes share the columns.
#pragma once

#include "block.hpp"
#include "comigs/kernels/norm.hpp"
#include "norm_element.hpp"

namespace comigs::kernels {

// Sums over the lanes of a warp; every lane gets the result. The order is fixed.
template <class Warp>
COMIGS_DEVICE void total(Warp& warp, typename Warp::template Local<float>& value) {
  typename Warp::template Local<float> other;
  for (int bit = warp_lanes / 2; bit > 0; bit /= 2) {
    warp.exchange(value, other, bit);
    warp.each([&](int thread) { value[thread] += other[thread]; });
  }
}

// f(column) for the columns of a lane, `together` neighbours at a time: the first of them.
template <int together, class F>
COMIGS_DEVICE void over_columns(int thread, std::int64_t width, const F& f) {
  for (std::int64_t c = thread % warp_lanes * together; c < width; c += warp_lanes * together) f(c);
}

template <int together, class Number>
COMIGS_DEVICE Pack<float, together> floats_at(const Number* from) {
  const auto numbers = *reinterpret_cast<const Pack<Number, together>*>(from);
  Pack<float, together> floats;
  COMIGS_UNROLL for (int i = 0; i < together; ++i) floats.at[i] = to_float(numbers.at[i]);
  return floats;
}

template <int together, class Number>
COMIGS_DEVICE void numbers_to(Number* to, const Pack<float, together>& floats) {
  Pack<Number, together> numbers;
  COMIGS_UNROLL for (int i = 0; i < together; ++i) from_float(floats.at[i], numbers.at[i]);
  *reinterpret_cast<Pack<Number, together>*>(to) = numbers;
}

// `together` divides the width. A lane reads what it alone wrote.
template <int together, class Warp, class Number>
COMIGS_DEVICE void norm_forward_row(Warp& warp, const NormForward<Number>& pass, std::int64_t row) {
  const std::int64_t C = pass.shape.width, E = pass.shape.readers, begin = row * C;
  const Number* x = pass.added == nullptr ? pass.x + begin : pass.sum + begin;
  Number* y = pass.y + begin;
  typename Warp::template Local<float> mean, inverse, read;
  warp.each([&](int thread) {
    mean[thread] = 0.0f;
    over_columns<together>(thread, C, [&](std::int64_t c) {
      auto values = floats_at<together>(pass.x + begin + c);
      if (pass.added != nullptr) {
        const auto added = floats_at<together>(pass.added + begin + c);
        COMIGS_UNROLL for (int i = 0; i < together; ++i) values.at[i] += added.at[i];
        numbers_to(pass.sum + begin + c, values);
        values = floats_at<together>(pass.sum + begin + c);
      }
      COMIGS_UNROLL for (int i = 0; i < together; ++i) mean[thread] += values.at[i];
    });
  });
  if (pass.shape.centred) total(warp, mean);
  warp.each([&](int thread) {
    mean[thread] = pass.shape.centred ? mean[thread] / static_cast<float>(C) : 0.0f;
    inverse[thread] = 0.0f;
    over_columns<together>(thread, C, [&](std::int64_t c) {
      const auto values = floats_at<together>(x + c);
      COMIGS_UNROLL for (int i = 0; i < together; ++i) {
        const float value = values.at[i] - mean[thread];
        inverse[thread] += value * value;
      }
    });
  });
  total(warp, inverse);
  warp.each([&](int thread) {
    inverse[thread] = inverse_deviation(inverse[thread], pass.shape, pass.epsilon);
    if (thread % warp_lanes == 0) {
      if (pass.shape.centred) pass.mean[row] = mean[thread];
      pass.inverse[row] = inverse[thread];
    }
    over_columns<together>(thread, C, [&](std::int64_t c) {
      auto values = floats_at<together>(x + c);
      const auto weight = floats_at<together>(pass.weight + c);
      COMIGS_UNROLL for (int i = 0; i < together; ++i) values.at[i] =
          (values.at[i] - mean[thread]) * inverse[thread] * weight.at[i];
      if (pass.bias != nullptr) {
        const auto bias = floats_at<together>(pass.bias + c);
        COMIGS_UNROLL for (int i = 0; i < together; ++i) values.at[i] += bias.at[i];
      }
      numbers_to(y + c, values);
    });
  });
  for (std::int64_t e = 0; e < E; ++e) {
    warp.each([&](int thread) {
      read[thread] = 0.0f;
      over_columns<together>(thread, C, [&](std::int64_t c) {
        const auto values = floats_at<together>(y + c), reader = floats_at<together>(pass.reader + e * C + c);
        COMIGS_UNROLL for (int i = 0; i < together; ++i) read[thread] += values.at[i] * reader.at[i];
      });
    });
    total(warp, read);
    warp.each([&](int thread) {
      if (thread % warp_lanes == 0) pass.read[row * E + e] = read[thread];
    });
  }
}

// Of one row at some columns, as norm.cpp has it: g and z.
template <int together>
struct NormTerms {
  Pack<float, together> g, z;
};

template <int together, class Number>
COMIGS_DEVICE NormTerms<together> norm_terms(const NormBackward<Number>& pass, std::int64_t row,
                                             std::int64_t c) {
  const std::int64_t C = pass.shape.width, E = pass.shape.readers;
  NormTerms<together> terms{.g = floats_at<together>(pass.d_y + row * C + c),
                            .z = floats_at<together>(pass.sum + row * C + c)};
  for (std::int64_t e = 0; e < E; ++e) {
    const auto reader = floats_at<together>(pass.reader + e * C + c);
    const float d_read = pass.d_read[row * E + e];
    COMIGS_UNROLL for (int i = 0; i < together; ++i) terms.g.at[i] += d_read * reader.at[i];
  }
  const auto weight = floats_at<together>(pass.weight + c);
  const float mean = pass.shape.centred ? pass.mean[row] : 0.0f, inverse = pass.inverse[row];
  COMIGS_UNROLL for (int i = 0; i < together; ++i) {
    terms.g.at[i] *= weight.at[i];
    terms.z.at[i] = (terms.z.at[i] - mean) * inverse;
  }
  return terms;
}

template <int together, class Warp, class Number>
COMIGS_DEVICE void norm_backward_row(Warp& warp, const NormBackward<Number>& pass, std::int64_t row) {
  const std::int64_t C = pass.shape.width;
  typename Warp::template Local<float> level, along;
  warp.each([&](int thread) {
    level[thread] = along[thread] = 0.0f;
    over_columns<together>(thread, C, [&](std::int64_t c) {
      const auto terms = norm_terms<together>(pass, row, c);
      COMIGS_UNROLL for (int i = 0; i < together; ++i) {
        level[thread] += terms.g.at[i];
        along[thread] += terms.g.at[i] * terms.z.at[i];
      }
    });
  });
  if (pass.shape.centred) total(warp, level);
  total(warp, along);
  warp.each([&](int thread) {
    const auto width = static_cast<float>(C);
    const float of_g = pass.shape.centred ? level[thread] / width : 0.0f, of_g_z = along[thread] / width;
    over_columns<together>(thread, C, [&](std::int64_t c) {
      const auto terms = norm_terms<together>(pass, row, c);
      Pack<float, together> d_x;
      COMIGS_UNROLL for (int i = 0; i < together; ++i) d_x.at[i] =
          (terms.g.at[i] - of_g - terms.z.at[i] * of_g_z) * pass.inverse[row];
      if (pass.d_sum != nullptr) {
        const auto d_sum = floats_at<together>(pass.d_sum + row * C + c);
        COMIGS_UNROLL for (int i = 0; i < together; ++i) d_x.at[i] += d_sum.at[i];
      }
      numbers_to(pass.d_x + row * C + c, d_x);
    });
  });
}

// Block `index` of as many as there are rows by warps.
template <int together, class Block, class Number>
COMIGS_DEVICE void norm_forward_block(Block& block, const NormForward<Number>& pass, std::int64_t index) {
  block.each_warp([&](auto& warp) {
    const std::int64_t row = index * (Block::threads / warp_lanes) + warp.index();
    if (row < pass.shape.rows) norm_forward_row<together>(warp, pass, row);
  });
}
template <int together, class Block, class Number>
COMIGS_DEVICE void norm_backward_block(Block& block, const NormBackward<Number>& pass, std::int64_t index) {
  block.each_warp([&](auto& warp) {
    const std::int64_t row = index * (Block::threads / warp_lanes) + warp.index();
    if (row < pass.shape.rows) norm_backward_row<together>(warp, pass, row);
  });
}

}  // namespace comigs::kernels
