// What there is to know about a causal language model without its weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comigs/kernels/activation.hpp"

namespace comigs::model {

using kernels::Activation;

/// A linear map of the frozen model that may get an adapter beside it.
struct Projection {
  std::string name;  ///< as in the model family's own files, without the layer
  std::int64_t in = 0, out = 0;
};

/// Positions by rotation of queries and keys (Su et al. 2021), half a head's width against the other half.
struct Rotary {
  enum class Scaling {
    none,
    linear,  ///< all frequencies divided by `factor`
    llama3,  ///< the lower ones, with a passage between wavelengths original / high and original / low
  };
  double theta = 0.0;  ///< 0: none
  Scaling scaling = Scaling::none;
  double factor = 1.0, low = 1.0, high = 4.0;
  std::int64_t original = 0;  ///< context that the model was trained on
};

struct Architecture {
  std::string family;                ///< Hugging Face's model_type
  std::int64_t layers = 0;           ///< L
  std::int64_t width = 0;            ///< C
  std::int64_t heads = 0;            ///< of queries
  std::int64_t key_value_heads = 0;  ///< each serves heads / key_value_heads of the queries'
  std::int64_t head_size = 0;
  std::int64_t inner = 0;       ///< F, width of the MLP's activations
  std::int64_t vocabulary = 0;  ///< V
  std::int64_t positions = 0;   ///< longest context
  double norm_epsilon = 1e-5;
  Activation activation = Activation::gelu_tanh;
  Rotary rotary = {};
  bool query_bias = false, output_bias = false, mlp_bias = false;  ///< of the Llama family; GPT-2 has all
  bool head_norms = false;            ///< queries and keys are normalised, head by head
  bool tied_head = true;              ///< the head is the token embedding, not a matrix of its own
  std::vector<Projection> attention;  ///< in the order in which a block uses them
  std::vector<Projection> up;         ///< of the MLP block, as the activation takes them
  Projection down;                    ///< expert, and one here
};

/// One weight of the frozen model.
struct WeightSpec {
  enum class Kind { matrix, residual_matrix, embedding, head, bias, scale };
  std::string name;  ///< in the family's files
  std::vector<std::int64_t> shape;
  Kind kind = Kind::matrix;      ///< how it is initialised in pretraining, and whether it is decayed
  std::string alternative = {};  ///< another name that it may have there
  std::string prefix = {};       ///< in front of the name, which a file may have or not
  bool is_in_out = false;        ///< a linear map's matrix lies as [in, out], not as [out, in]

  [[nodiscard]] std::int64_t count() const;
};

/// GPT-2 of a given size, as Radford et al. 2019: inner width 4 C.
[[nodiscard]] Architecture gpt2_architecture(std::int64_t layers, std::int64_t width, std::int64_t heads,
                                             std::int64_t vocabulary, std::int64_t positions);

}  // namespace comigs::model
