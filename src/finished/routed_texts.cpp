#include "comigs/finished/routed_texts.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>

#include "comigs/base/error.hpp"
#include "comigs/base/log.hpp"
#include "comigs/train/evaluation.hpp"

namespace comigs::finished {

namespace {

// Nothing known of it yet.
RoutedText unrouted(const data::Probe& probe, const results::RoundShape& shape) {
  const std::int64_t by_token = shape.users * shape.layers * shape.experts;
  return {.tokens = {.name = probe.name,
                     .owner = probe.owner,
                     .ids = probe.ids,
                     .texts = probe.texts,
                     .score = std::vector<float>(probe.ids.size() * static_cast<std::size_t>(by_token),
                                                 std::numeric_limits<float>::quiet_NaN())},
          .generalist_shares = {}};
}

// gate [n, L, E] of the user's model.
void add(RoutedText& text, const at::Tensor& gate, std::int64_t user, std::int64_t generalists,
         const results::RoundShape& shape) {
  const at::Tensor score = at::from_blob(
      text.tokens.score.data(), {shape.users, gate.size(0), shape.layers, shape.experts}, at::kFloat);
  score[user].narrow(2, 0, gate.size(2)).copy_(gate);
  text.generalist_shares.push_back(
      gate.narrow(2, 0, generalists).sum(2, false, at::kDouble).nanmean().item<double>());
}

}  // namespace

RoutedTexts::RoutedTexts(const config::Route& options)
    : run_(options.run), models_(run_, {.model = options.model, .data = options.data}) {
  if (models_.method().gate == adapter::Gate::none)
    throw ConfigError(fmt::format("{}: method '{}' has no experts, so there is nothing to route",
                                  run_.path().string(), models_.method().name));
  probes_ = read_probes(options);
}

std::vector<data::Probe> RoutedTexts::read_probes(const config::Route& options) const {
  if (options.probes.empty())
    return data::test_probes(models_.open_data(", --probes names other texts"), options.tokens);
  if (!options.data.empty()) spdlog::warn("without effect beside --probes: --data");
  return models_.open_probes(options.probes);
}

std::int64_t RoutedTexts::count() const {
  return static_cast<std::int64_t>(models_.users().size() * probes_.size());
}

std::vector<RoutedText> RoutedTexts::run(const c10::Device& device,
                                         const std::function<void(const std::string&)>& done) const {
  const auto base = models_.load_base(device);
  const results::RoundShape& shape = run_.record().shape;
  std::vector<RoutedText> texts;
  for (const data::Probe& probe : probes_) texts.push_back(unrouted(probe, shape));
  for (std::size_t user = 0; user < models_.users().size(); ++user) {
    const adapter::Parameters parameters = models_.parameters(user, device);
    const auto generalists = static_cast<std::int64_t>(models_.users()[user].generalists.size());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const data::Probe& probe = probes_[i];
      add(texts[i],
          train::gates(*base, parameters, probe.ids, probe.begins, probe.instruction,
                       models_.config().users[user].context_tokens),
          static_cast<std::int64_t>(user), generalists, shape);
      done(models_.names()[user]);
    }
  }
  return texts;
}

}  // namespace comigs::finished
