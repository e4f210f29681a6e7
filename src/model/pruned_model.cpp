#include "comigs/model/pruned_model.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace comigs::model {

namespace {

constexpr std::int64_t tokens_at_once = 4096;

// Sums over the inputs of one or several maps, on the model's device.
class RunningSums {
 public:
  explicit RunningSums(PruningMethod method) : method_(method) {}

  // x [n, in]. A batch's sums are float32 products, what they add up to is float64.
  void add(const at::Tensor& x) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor sums =
        method_ == PruningMethod::wanda ? wide.square().sum(0, false, at::kDouble) : wide.t().mm(wide);
    sums_ = sums_.defined() ? sums_.add_(sums) : sums.to(at::kDouble);
    count_ += x.size(0);
  }
  [[nodiscard]] InputSums on_host() const {
    const at::Tensor sums = sums_.to(at::kCPU);
    return method_ == PruningMethod::wanda ? InputSums{.squares = sums, .gram = {}, .count = count_}
                                           : InputSums{.squares = {}, .gram = sums, .count = count_};
  }

 private:
  PruningMethod method_;
  at::Tensor sums_;
  std::int64_t count_ = 0;
};

// What comes into one layer's maps while they are dense; in the order of `prunable_weights`. Nothing comes
// out.
class InputsOfLayer : public Hooks {
 public:
  explicit InputsOfLayer(const Architecture& architecture, PruningMethod method)
      : method_(method), sites_(architecture.attention.size()), ups_(architecture.up.size()) {}

  [[nodiscard]] at::Tensor project(std::size_t /*layer*/, std::size_t site, const at::Tensor& x,
                                   const Weight& weight) override {
    // Queries, keys and values are made from one x, which is summed once.
    see(site, x, site > 0 && x.is_same(last_));
    last_ = x;
    return model::project(x, weight);
  }
  [[nodiscard]] at::Tensor mlp(std::size_t /*layer*/, const Normed& in, const FrozenMlp& mlp) override {
    const at::Tensor& x = in.x;
    std::vector<at::Tensor> hidden;
    for (std::size_t up = 0; up < ups_; ++up) {
      see(sites_ + up, x, up > 0);
      hidden.push_back(model::project(x, mlp.up[up]));
    }
    const at::Tensor inner = activate(mlp.activation, hidden);
    see(sites_ + ups_, inner, false);
    return x;  // what leaves the layer is made again, by what stays of its matrices
  }

  // One a map; those of maps with the same inputs are one tensor.
  [[nodiscard]] std::vector<InputSums> sums() const {
    std::vector<InputSums> of_sums, of_maps;
    for (const RunningSums& sums : sums_) of_sums.push_back(sums.on_host());
    for (const std::size_t place : places_) of_maps.push_back(of_sums[place]);
    return of_maps;
  }

 private:
  // Maps come in their order, batch after batch.
  void see(std::size_t map, const at::Tensor& x, bool is_as_before) {
    if (map == places_.size()) {
      if (!is_as_before) sums_.emplace_back(method_);
      places_.push_back(sums_.size() - 1);
    }
    if (!is_as_before) sums_[places_[map]].add(x);
  }

  PruningMethod method_;
  std::size_t sites_, ups_;
  std::vector<RunningSums> sums_;
  std::vector<std::size_t> places_;  // of each map's sums
  at::Tensor last_;
};

// One layer with other matrices, W [out, in] each, in the order of `prunable_weights`.
class OtherMatrices : public Hooks {
 public:
  explicit OtherMatrices(std::vector<at::Tensor> matrices) : matrices_(std::move(matrices)) {}

  [[nodiscard]] at::Tensor project(std::size_t /*layer*/, std::size_t site, const at::Tensor& x,
                                   const Weight& weight) override {
    return model::project(x, instead(site, weight));
  }
  [[nodiscard]] at::Tensor mlp(std::size_t /*layer*/, const Normed& x, const FrozenMlp& mlp) override {
    FrozenMlp other = mlp;
    std::size_t map = matrices_.size() - mlp.up.size() - 1;
    for (Weight& up : other.up) up = instead(map++, up);
    other.down = instead(map, mlp.down);
    return plain_mlp(x.x, other);
  }

 private:
  [[nodiscard]] Weight instead(std::size_t map, const Weight& weight) const {
    return {.matrix = matrices_[map].t().to(weight.matrix.options()), .bias = weight.bias};
  }

  std::vector<at::Tensor> matrices_;
};

// [out, in], and as it lies in a file; the way there is the way back.
at::Tensor turned(const at::Tensor& matrix, const WeightSpec& spec) {
  return spec.is_in_out ? matrix.t() : matrix;
}

at::Tensor pruned_weight(const WeightSpec& spec, const at::Tensor& stored, const Pruning& pruning,
                         const InputSums& inputs) {
  return turned(pruned(turned(stored, spec), pruning.method, pruning.sparsity, inputs), spec).contiguous();
}

// The stream of all sequences as it enters a layer, some thousand tokens at a time.
class CalibrationStream {
 public:
  CalibrationStream(const BaseModel& base, const at::Tensor& tokens) : base_(base), context_(tokens.size(1)) {
    const std::int64_t at_once = std::max(tokens_at_once / context_, std::int64_t{1});
    for (const at::Tensor& part : tokens.split(at_once))
      parts_.push_back(base.place(base.embed(part), sequences(part.size(0))));
  }

  // Through a layer; the stream goes on from there if it `advances`.
  void run(std::size_t layer, Hooks& hooks, bool advances) {
    for (at::Tensor& part : parts_) {
      const ResidualStream x =
          through_layer(base_, layer, {.x = part, .waiting = {}}, sequences(part.size(0) / context_), hooks);
      if (advances) part = x.whole();
    }
  }

 private:
  [[nodiscard]] Sequences sequences(std::int64_t count) const {
    return {.count = count, .length = context_, .first = 0};
  }

  const BaseModel& base_;
  std::int64_t context_;
  std::vector<at::Tensor> parts_;  // [n T, C] each
};

}  // namespace

std::vector<Projection> linear_maps(const Architecture& architecture) {
  std::vector<Projection> maps = architecture.attention;
  maps.insert(maps.end(), architecture.up.begin(), architecture.up.end());
  maps.push_back(architecture.down);
  return maps;
}

std::vector<std::vector<WeightSpec>> prunable_weights(const Architecture& architecture) {
  std::vector<std::vector<WeightSpec>> layers(static_cast<std::size_t>(architecture.layers));
  for (const Projection& map : linear_maps(architecture)) {
    const std::vector<WeightSpec> specs = weights_of(architecture, map);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) layers[layer].push_back(specs[layer]);
  }
  return layers;
}

std::map<std::string, at::Tensor> prune(const BaseModel& base, const WeightSource& stored,
                                        const at::Tensor& tokens, const Pruning& pruning,
                                        const std::function<void()>& done) {
  const at::NoGradGuard no_gradients;
  std::map<std::string, at::Tensor> weights;
  CalibrationStream stream(base, tokens);
  const std::vector<std::vector<WeightSpec>> layers = prunable_weights(base.architecture());
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    InputsOfLayer inputs(base.architecture(), pruning.method);
    stream.run(layer, inputs, false);
    const std::vector<InputSums> sums = inputs.sums();
    std::vector<at::Tensor> matrices;
    for (std::size_t map = 0; map < sums.size(); ++map) {
      const WeightSpec& spec = layers[layer][map];
      weights[spec.name] = pruned_weight(spec, stored(spec), pruning, sums[map]);
      matrices.push_back(turned(weights[spec.name], spec));
    }
    OtherMatrices others(std::move(matrices));
    if (layer + 1 < layers.size()) stream.run(layer, others, true);
    done();
  }
  return weights;
}

std::map<std::string, at::Tensor> prune_by_magnitude(const Architecture& architecture,
                                                     const WeightSource& stored, const Sparsity& sparsity) {
  std::map<std::string, at::Tensor> weights;
  for (const std::vector<WeightSpec>& layer : prunable_weights(architecture))
    for (const WeightSpec& spec : layer)
      weights[spec.name] =
          pruned_weight(spec, stored(spec), {.method = PruningMethod::magnitude, .sparsity = sparsity}, {});
  return weights;
}

}  // namespace comigs::model
